"""make_checkpoint puts folders together that load, and says what it cannot."""

import json
import sys

import pytest
import torch

from spear_policy.inference import make_checkpoint
from spear_policy.inference.spear_engine import load


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["make_checkpoint", *map(str, arguments)])
    make_checkpoint.main()


def test_an_untrained_checkpoint_says_that_it_is_and_loads(monkeypatch, tmp_path, capsys):
    folder = tmp_path / "tiny"
    call(monkeypatch, "--preset", "tiny", "--seed", 3, "--output", folder)
    assert "tiny-untrained-3" in capsys.readouterr().out
    policy = load(folder)
    assert policy.card.recipe == "untrained" and policy.card.datasets == ()
    assert policy.tokenizer.encode("put it down")
    assert json.loads((folder / "config.json").read_text())["name"] == "tiny"
    again = make_checkpoint.untrained_policy(policy.model.config, seed=3)
    for name, values in again.model.state_dict().items():
        assert torch.equal(values, policy.model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "tinny"], "no preset 'tinny'"),
        (["--preset", "spear1"], "spear1 has PaliGemma's words: give --paligemma"),
        (["--preset", "tiny", "--moge", "nowhere/model.pt"], "nowhere/model.pt"),
        (["--preset", "tiny", "--paligemma", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_made_is_refused_and_nothing_is_written(
    monkeypatch, tmp_path, arguments, words
):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, *arguments, "--output", tmp_path / "out")
    assert words in str(stop.value)
    assert not (tmp_path / "out").exists()
