"""The presets have exactly the sizes, and the cost, that follow from their shapes."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spear_policy.model import model_info
from spear_policy.model.config import preset
from spear_policy.model.model_info import DEVICES, inference_stages, parameter_counts, total
from spear_policy.model.sampling import Sampler
from spear_policy.model.spear import ModelInputs, SpearModel, build

SECTION_2_3 = {
    "siglip": 412_442_352,
    "siglip_projector": 2_361_344,
    "gemma": 1_981_884_416,
    "words": 526_647_296,
    "paligemma": 2_923_335_408,
    "depth": 304_368_640,
    "depth_projector": 8_390_656,
    "coordinates": 2_097_152,
    "spear_vlm": 3_238_191_856,
    "expert": 311_464_960,
    "heads": 3_174_408,
    "total": 3_552_831_224,
}
# 20 words: GFLOP and MB
SECTION_7 = {
    "SigLIP": (311.5, 823.5),
    "depth encoder": (230.8, 605.2),
    "projectors": (7.8, 21.5),
    "language prefix": (1458.8, 3745.5),
    "10 x denoising step": (34.0, 6363),
}


def test_spear1_has_exactly_the_parameters_of_the_specification():
    counts = parameter_counts(preset("spear1"))
    assert counts == SECTION_2_3


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("spear_vlm", 3_238_191_856, 3_238_191_856),
        ("pi0_paligemma", 2_923_335_408 + 2_097_152 + 311_464_960 + 3_174_408, 3_240_071_928),
        ("small", 20e6, 30e6),
        ("tiny", 2e6, 8e6),
    ],
)
def test_every_preset_can_be_built_and_has_its_size(name, low, high):
    assert low <= parameter_counts(preset(name))["total"] <= high


def test_stage_1a_trains_what_the_specification_counts():
    """Both projectors and the 3D tokens."""
    counts = parameter_counts(preset("spear_vlm"))
    trained = ("siglip_projector", "depth_projector", "coordinates")
    assert sum(counts[name] for name in trained) == 12_849_152


def test_the_cost_of_one_inference_is_that_of_the_specification():
    stages = inference_stages(preset("spear1"), text_tokens=20)
    assert [stage.name for stage in stages] == list(SECTION_7)
    for stage, (gflop, mb) in zip(stages, SECTION_7.values(), strict=True):
        assert stage.flops / 1e9 == pytest.approx(gflop, abs=0.06)
        assert stage.bytes_read / 1e6 == pytest.approx(mb, abs=1.0)
    assert total(stages).flops / 1e9 == pytest.approx(2042.9, abs=0.1)


def test_the_latency_floors_are_those_of_the_specification():
    stages = inference_stages(preset("spear1"), text_tokens=20)
    floors_ms = {d.name: 1e3 * sum(d.floor_s(stage) for stage in stages) for d in DEVICES}
    expected = {"H200": 4.0, "RTX 4090": 18.5, "Jetson Thor": 42, "Jetson Orin 64 GB": 78}
    assert floors_ms == pytest.approx(expected, rel=0.01)


def test_the_counted_arithmetic_is_what_torch_executes():
    """torch's own counter over a real sampling of `tiny`, the dead last layer left out."""
    config = preset("tiny")
    images = tuple(torch.zeros(1, 3, c.height, c.width) for c in config.cameras)
    state = torch.tensor([[0.0, 0, 0, 1, 0, 0, 0, 1]])
    inputs = ModelInputs(images, torch.full((1, 12), 5), state=state)
    sampler = Sampler(build(config), steps=3)
    # the fused attention of the CPU is not in torch's table of operations; the plain one is
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        sampler(inputs)
    counted = total(inference_stages(config, text_tokens=12, steps=3)).flops
    # the heads, the folded time table and the state's token are not in the formula
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.01)


def test_a_model_needs_no_memory_to_be_counted():
    with torch.device("meta"):
        model = SpearModel(preset("spear1"))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def call(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["model_info", *arguments])
    monkeypatch.setenv("COLUMNS", "120")
    model_info.main()
    return capsys.readouterr().out


def test_model_info_prints_sizes_cost_and_floors(monkeypatch, capsys):
    printed = call(monkeypatch, capsys, "--preset", "spear1")
    for words in ("3,552,831,224", "311,464,960", "2,042.9", "H200", "4.0", "Jetson Orin"):
        assert words in printed


def test_model_info_answers_other_programs_and_reads_a_checkpoints_config(
    monkeypatch, capsys, tmp_path
):
    file = tmp_path / "config.json"
    config = replace(preset("tiny"), name="mine")
    file.write_text(json.dumps(config.to_dict()))
    found = json.loads(call(monkeypatch, capsys, "--config", str(file), "--json", "--steps", "4"))
    assert found["name"] == "mine" and found["steps"] == 4
    assert found["stages"][-2]["name"] == "4 x denoising step"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "spear2"], "no preset 'spear2': there are spear1"),
        (["--config", "nowhere.json"], "nowhere.json"),
        (["--steps", "0"], "'0' is not a whole number from 1 on"),
    ],
)
def test_model_info_refuses_bad_input_in_one_sentence(monkeypatch, capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, capsys, *arguments)
    assert words in f"{stop.value} {capsys.readouterr().err}"
