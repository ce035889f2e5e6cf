"""The action expert's inputs: the embedding of time, and its folded form."""

import math

import pytest
import torch
from toy_models import MICRO, micro

from spear_policy.model.config import ExpertConfig
from spear_policy.model.sampling import FoldedActionEmbedding
from spear_policy.model.spear import time_embedding

EXPERT = ExpertConfig(width=8, mlp_width=16)


def test_the_time_embedding_has_the_golden_values_of_the_specification():
    """facts/model.md 3.8: width 8, tau = 0.3, periods 0.004, 0.04, 0.4 and 4."""
    sines, cosines = time_embedding(torch.tensor(0.3), 8, EXPERT).chunk(2)
    assert sines[2] == pytest.approx(-1.0, abs=1e-6)
    assert sines[3] == pytest.approx(0.4539904997, abs=1e-6)
    assert cosines[3] == pytest.approx(0.8910065242, abs=1e-6)


def test_the_fastest_period_keeps_its_digits_in_half_precision_surroundings():
    """Its angle reaches 1571 rad at tau = 1, where fp32 is wrong in the fourth digit."""
    taus = torch.linspace(0, 1, 101, dtype=torch.float64)
    expected = [math.sin(2 * math.pi * tau / 0.004) for tau in taus.tolist()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sines = time_embedding(taus, 8, EXPERT)[:, 0]
    torch.testing.assert_close(
        sines.double(), torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0
    )


@torch.no_grad()
def test_the_folded_embedding_is_the_embedding():
    expert = micro().expert
    taus = torch.arange(10) / 10
    folded = FoldedActionEmbedding(expert, taus)
    actions = torch.randn(3, MICRO.chunk_length, 8, generator=torch.Generator().manual_seed(0))
    for k, tau in enumerate(taus):
        direct = expert.embed_actions(actions, tau.expand(3))
        torch.testing.assert_close(folded(actions, k), direct, atol=1e-5, rtol=1e-5)
