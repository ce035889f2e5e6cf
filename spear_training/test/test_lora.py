"""Adapters: nothing changes at the start, only they learn, and merged they compute the same."""

import pytest
import torch
from torch import nn

from spear_training.train.config import TrainingError
from spear_training.train.lora import AdaptedLinear, add_adapters, merge_adapters


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.language = nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 12, bias=False))
        self.head = nn.Linear(12, 2)

    def forward(self, x):
        return self.head(self.language(x))


def test_an_adapted_layer_computes_what_it_did_until_it_learns_and_only_adapters_learn():
    torch.manual_seed(0)
    model, x = Network(), torch.randn(5, 12)
    before = model(x).detach()
    names = set(model.state_dict())
    assert add_adapters(model, "language", 3) == 2
    torch.testing.assert_close(model(x), before)
    assert names < set(model.state_dict()) and type(model.head) is nn.Linear
    weights = model.language[0].weight.detach().clone()
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        optimiser.zero_grad()
        model(x).square().sum().backward()
        optimiser.step()
    assert torch.equal(model.language[0].weight, weights)
    assert model.language[0].adapter_out.abs().max() > 0
    assert not torch.allclose(model(x), before)


def test_merged_it_is_the_plain_network_that_computes_the_same():
    torch.manual_seed(1)
    model, x, names = Network(), torch.randn(5, 12), set(Network().state_dict())
    add_adapters(model, "language", 2)
    with torch.no_grad():
        model.language[0].adapter_out.normal_()
        model.language[2].adapter_out.normal_()
    found = model(x)
    merge_adapters(model)
    torch.testing.assert_close(model(x), found)
    assert set(model.state_dict()) == names
    assert not any(isinstance(each, AdaptedLinear) for each in model.modules())


def test_ranks_and_parts_that_cannot_be_are_refused_in_a_sentence():
    for rank in (0, 12):
        with pytest.raises(TrainingError, match=r"lora_rank is \d+, and language.0 is 16 x 12"):
            add_adapters(Network(), "language", rank)
    with pytest.raises(TrainingError, match="head has no linear layer"):
        add_adapters(Network(), "head", 2)
