"""A model's configuration is checked, and survives its file."""

import json
from dataclasses import replace

import pytest

from spear_policy.model.config import (
    PRESETS,
    CameraConfig,
    ConfigError,
    FlowConfig,
    ModelConfig,
    preset,
)

SQUARED = FlowConfig(rotation_velocity_loss="mse")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_its_file(name):
    config = preset(name)
    assert config.name == name
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_papers_images_give_300_and_64_tokens():
    config = preset("spear1")
    assert config.image_tokens == (300, 64)
    assert [config.grid(camera) for camera in config.cameras] == [(15, 20), (8, 8)]


def test_an_unknown_preset_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match="no preset 'spear2': there are spear1, spear_vlm"):
        preset("spear2")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cameras": ()}, "at least one camera"),
        ({"cameras": (CameraConfig("external", 280, 200),)}, "external is 280x200"),
        ({"cameras": (CameraConfig("a", 28, 28),) * 2}, "name twice"),
        ({"chunk_length": 0}, "chunk_length must be at least 1"),
        ({"depth": replace(preset("tiny").depth, output_layers=(4, 6))}, "within the layers"),
        ({"depth": replace(preset("tiny").depth, heads=3)}, "multiple of its heads"),
        ({"language": replace(preset("tiny").language, head_dim=47)}, "head_dim must be even"),
        ({"vocabulary": replace(preset("tiny").vocabulary, loc_begin=500)}, "outside the vocab"),
        ({"flow": replace(preset("tiny").flow, steps=0)}, "flow.steps must be at least 1"),
        ({"flow": replace(preset("tiny").flow, time_alpha=0.0)}, "time_alpha, time_beta must be"),
        ({"flow": replace(preset("tiny").flow, time_scale=1.5)}, "flow.time_scale must be in"),
        ({"flow": replace(preset("tiny").flow, min_delta=0.0)}, "flow.min_delta must be in"),
        ({"flow": FlowConfig(rotation_geometric_loss="none")}, "nothing would teach the speed"),
        ({"flow": FlowConfig(rotation="r4", noise_sign="shortest")}, "is of rotation 's3' and not"),
        (
            {"flow": replace(SQUARED, rotation_geometric_loss="none", rot_geo_scale="inv_delta")},
            "flow.rot_geo_scale scales a loss that is 'none'",
        ),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_in_one_sentence(change, words):
    with pytest.raises(ConfigError, match=words):
        replace(preset("tiny"), **change)


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (("colour",), 1, "config has the unknown field 'colour'"),
        (("fusion",), "point_map", "config has the unknown field 'fusion'"),
        (("patch_size",), "14", "config.patch_size is '14': it must be int"),
        (("patch_size",), True, "must be int"),
        (("patch_size",), 0, "patch_size must be at least 1"),
        (("siglip", "heads"), 0, "siglip.heads must be at least 1"),
        (("depth", "mlp_width"), -1, "depth.mlp_width must be at least 1"),
        (("language", "layers"), 10**9, "language.layers must be at least 1 and at most 1000"),
        (("language", "rope_base"), float("nan"), "language.rope_base is nan"),
        (("language", "rope_base"), 0, "language.rope_base must be above 1"),
        (("depth", "position_offset"), float("inf"), "depth.position_offset is inf"),
        (("expert", "time_min_period"), 0, "time_min_period, time_max_period must be in"),
        (("expert", "time_max_period"), 4e-3, "time_min_period, time_max_period must be in"),
        (("flow", "steps"), 10**9, "flow.steps must be at least 1 and at most 1000"),
        (("flow", "time_alpha"), 1e30, "time_alpha, time_beta must be in"),
        (("vocabulary", "eos_id"), 512, "must be below its size"),
        (("flow",), 3, "config.flow is 3"),
        (("flow", "rotation"), "so3", "one of s3, r4, matrix, euler"),
        (("cameras",), "external", "must be a list"),
        (("siglip",), 3, "config.siglip is 3"),
        (("cameras", 0, "name"), 3, r"config.cameras\[0\].name is 3"),
    ],
)
def test_a_mistake_in_the_file_is_named(where, value, words):
    values = json.loads(json.dumps(preset("tiny").to_dict()))
    place = values
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    with pytest.raises(ConfigError, match=words):
        ModelConfig.from_dict(values)


def test_a_missing_field_without_a_default_is_named():
    values = preset("tiny").to_dict()
    del values["language"]
    with pytest.raises(ConfigError, match="config lacks the field 'language'"):
        ModelConfig.from_dict(values)
