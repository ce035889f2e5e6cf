"""make_checkpoint puts folders together that load, and says what it cannot."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from checkpoint_checks import public_dinov2, public_pi0, write_moge
from toy_models import MICRO, micro

from spear_policy.inference import make_checkpoint
from spear_policy.inference.spear_engine import SpearEngine, load
from spear_policy.model.checkpoint import CheckpointError, save_weights
from spear_policy.model.config import PRESETS
from spear_policy.model.public_weights import load_stage1
from spear_policy.model.tokenizer import train_tokenizer


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


def test_what_stays_random_is_named_and_nothing_else(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(PRESETS, "micro", lambda: MICRO)
    moge = write_moge(tmp_path / "model.pt", public_dinov2(MICRO.depth), version=2)
    public_pi0(MICRO, dims=32).save_pretrained(tmp_path / "pi0")
    given = ["--preset", "micro", "--moge", moge, "--output", tmp_path / "out"]
    call(monkeypatch, *given, "--pi0-expert", tmp_path / "pi0")
    heads = "expert.action_in, expert.state_in, expert.action_out"
    assert f"random: siglip, fusion, tokens, language, {heads}\n" in capsys.readouterr().out
    assert load(tmp_path / "out").model.config.depth.output_layers == (1, 3)
    call(monkeypatch, *given, "--pi0", tmp_path / "pi0")
    assert f"random: fusion.depth_projector, {heads}\n" in capsys.readouterr().out


def test_a_model_without_actions_gets_a_folder_that_makes_no_chunks(monkeypatch, tmp_path):
    monkeypatch.setitem(PRESETS, "vlm", lambda: replace(MICRO, expert=None))
    call(monkeypatch, "--preset", "vlm", "--output", tmp_path / "vlm")
    policy = load(tmp_path / "vlm")
    with pytest.raises(ValueError, match="no action expert .* folder of a stage 2 checkpoint"):
        SpearEngine(policy, "franka")


def test_a_trained_model_of_stage_one_becomes_the_start_of_stage_two(monkeypatch, tmp_path, capsys):
    stage1 = micro(expert=None, depth=replace(MICRO.depth, output_layers=(0, 2)))
    save_weights(tmp_path / "vlm", stage1, train_tokenizer(MICRO.vocabulary))
    monkeypatch.setitem(PRESETS, "micro", lambda: MICRO)
    given = ["--preset", "micro", "--stage1", tmp_path / "vlm", "--output", tmp_path / "out"]
    call(monkeypatch, *given)
    assert "random: expert\n" in capsys.readouterr().out
    policy = load(tmp_path / "out")
    assert policy.model.config == replace(MICRO, depth=stage1.config.depth)
    for name, values in stage1.state_dict().items():
        assert torch.equal(policy.model.get_parameter(name), values), name
    with pytest.raises(SystemExit, match="--stage1 has all but the expert"):
        call(monkeypatch, *given, "--moge", tmp_path)
    with pytest.raises(CheckpointError, match=r"config.json: its depth is not that of micro"):
        load_stage1(micro(), tmp_path / "vlm")
    (tmp_path / "vlm" / "config.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"vlm/config.json: .*; give a folder of stage 1"):
        call(monkeypatch, *given)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "tinny"], "no preset 'tinny'"),
        (["--preset", "spear1"], "spear1 has PaliGemma's words: give --paligemma"),
        (["--preset", "tiny", "--moge", "nowhere/model.pt"], "nowhere/model.pt"),
        (["--preset", "tiny", "--paligemma", "nowhere"], "nowhere"),
        (
            ["--preset", "tiny", "--paligemma", "a", "--pi0", "b"],
            "give --pi0-expert with the first",
        ),
        (["--preset", "pi0_paligemma", "--pi0", "b"], "give --paligemma or --tokenizer"),
    ],
)
def test_what_cannot_be_made_is_refused_and_nothing_is_written(
    monkeypatch, tmp_path, arguments, words
):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, *arguments, "--output", tmp_path / "out")
    assert words in str(stop.value)
    assert not (tmp_path / "out").exists()
