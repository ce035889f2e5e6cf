"""MoGe's encoder is read from model.pt of either version, or refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoint_checks import changed, copies, public_dinov2, refused, write_moge
from toy_models import MICRO, micro

from spear_policy.model.public_weights import load_moge, with_layers_of_moge
from spear_policy.shared.config import ConfigError

DEPTH = MICRO.depth
SECOND = replace(MICRO, depth=replace(DEPTH, output_layers=(1, 3)))


@pytest.fixture(scope="module")
def dinov2():
    return public_dinov2(DEPTH)


@torch.no_grad()
@pytest.mark.parametrize("version", [1, 2])
def test_moges_encoder_gives_dinov2s_features_from_either_version(dinov2, tmp_path, version):
    path = write_moge(tmp_path / "model.pt", dinov2, version)
    model = micro() if version == 1 else micro(depth=SECOND.depth)
    before = copies(model)
    filled = load_moge(model, path)
    assert set(filled.taken) == changed(model, before) == {n for n in before if n[:6] == "depth."}
    assert len(filled.ignored) == {1: 3, 2: 7}[version]
    image = torch.rand(1, 3, 70, 70)  # the table's own grid: no resampling
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    hidden = dinov2((image - mean) / std, output_hidden_states=True).hidden_states
    layers = model.config.depth.output_layers
    expected = torch.cat([dinov2.layernorm(hidden[i + 1])[:, 1:] for i in layers], dim=-1)
    assert expected.std() > 0.05
    torch.testing.assert_close(model.depth([image]), expected, atol=1e-4, rtol=1e-4)


def test_output_layers_that_moge_was_not_trained_with_are_refused(dinov2, tmp_path):
    first = write_moge(tmp_path / "first.pt", dinov2)
    second = write_moge(tmp_path / "second.pt", dinov2, 2)
    wanted = "set depth.output_layers"
    refused(load_moge, micro(), second, second, "[1, 3], not [1, 2, 3, 4]", wanted)
    refused(load_moge, micro(depth=SECOND.depth), first, "is 4", "[1, 2, 3, 4], not [1, 3]", wanted)
    unsaid = write_moge(tmp_path / "unsaid.pt", dinov2, 2, settings={"neck": {}})
    refused(load_moge, micro(), unsaid, "(5, 11, 17, 23)", wanted)
    strange = write_moge(tmp_path / "strange.pt", dinov2, settings={"intermediate_layers": "all"})
    refused(load_moge, micro(), strange, "is 'all': it must be a number of layers")


def test_a_configuration_takes_the_layers_that_a_moge_file_names(dinov2, tmp_path):
    second = write_moge(tmp_path / "second.pt", dinov2, 2)
    config = with_layers_of_moge(MICRO, second)
    assert config == SECOND
    load_moge(micro(depth=config.depth), second)
    with pytest.raises(ConfigError, match="depth.output_layers must ascend within the layers"):
        with_layers_of_moge(MICRO, write_moge(tmp_path / "large.pt", dinov2, 2, settings={"a": {}}))


def test_a_spoiled_moge_is_refused_by_file_and_key_and_changes_nothing(dinov2, tmp_path):
    path, model = tmp_path / "model.pt", micro()
    key = "backbone.blocks.3.mlp.fc2.weight"
    for value, words in (
        (None, "has no tensor"),
        (torch.full((64, 128), float("nan")), "NaN"),
        (torch.zeros(64, 64), "is needed"),
        (torch.zeros(64, 128, dtype=torch.int32), "not floating-point"),
    ):
        write_moge(path, dinov2, **{key: value})
        refused(load_moge, model, path, path, key, words)
    write_moge(path, dinov2, **{"backbone.register_tokens": torch.zeros(4, 64)})
    refused(load_moge, model, path, "unknown tensor 'backbone.register_tokens'")
    whole = write_moge(path, dinov2).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(load_moge, model, path, path, "again")
    torch.save({"model": {"a": 1}, "model_config": {}}, path)
    refused(load_moge, model, path, "'model'")
    torch.save(torch.zeros(3), path)
    refused(load_moge, model, path, "'model_config'")
    refused(load_moge, model, tmp_path / "nowhere.pt", "nowhere.pt", "cannot read")
    with pytest.raises(ValueError, match="micro has no depth encoder"):
        load_moge(micro(depth=None), path)


class Hostile:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def test_nothing_in_a_moge_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"a": Hostile()}, "model_config": {}}, "model.pt")
    refused(load_moge, micro(), Path("model.pt"), "model.pt")
    assert not Path("executed").exists()
