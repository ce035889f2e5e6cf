"""bench tells where the time of a chunk goes, in figures that add up."""

import json
import sys

import pytest

from spear_policy.inference import bench
from spear_policy.model.config import preset
from spear_policy.model.model_info import inference_stages, total


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    bench.main()


def test_the_figures_are_written_and_add_up(monkeypatch, tmp_path, capsys):
    file = tmp_path / "new" / "bench.json"
    options = ["--preset", "tiny", "--repeats", "5", "--steps", "4", "--text-tokens", "12"]
    call(monkeypatch, *options, "--threads", "1", "--json", str(file))
    found = json.loads(file.read_text())
    stages = found["stages"]
    assert set(stages) == {"preprocess", "prefix", "step", "total"}
    for each in stages.values():
        assert 0 < each["p50_s"] <= each["p99_s"]
    parts = sum(stages[name]["p50_s"] for name in ("preprocess", "prefix"))
    assert stages["total"]["p99_s"] > parts + 4 * 0.5 * stages["step"]["p50_s"]
    assert (found["steps"], found["mode"], found["repeats"]) == (4, "eager", 5)
    whole = total(inference_stages(preset("tiny"), 12, 4, bytes_per_value=4))
    assert (found["flops"], found["bytes_read"]) == (whole.flops, whole.bytes_read)
    assert found["peak_memory_bytes"] > 20e6  # the weights alone
    assert found["floor_s"] is None  # no floor is claimed for a CPU
    printed = capsys.readouterr().out
    assert "step (of 4)" in printed and "p99 ms" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "huge"], "no preset 'huge'"),
        (["--preset", "tiny", "--graphs"], "CUDA graphs need a GPU"),
        (["--preset", "spear_vlm"], "spear_vlm has no action expert: there is no chunk to time"),
        (["--preset", "tiny", "--text-tokens", "0"], "'0' is not a whole number from 1 on"),
        (["--preset", "tiny", "--text-tokens", "49"], "49 text tokens"),
        (["--preset", "tiny", "--repeats", "-1"], "'-1' is not a whole number from 1 on"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(monkeypatch, capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, *arguments)
    assert words in f"{stop.value} {capsys.readouterr().err}"


def test_a_gpus_floor_is_compared_with_what_was_reached():
    stages = inference_stages(preset("spear1"))
    gpu = bench.DEVICES[0]
    seconds = {"preprocess": [0.001], "prefix": [0.006], "step": [0.0005], "total": [0.012]}
    found = bench.report(seconds, stages, gpu)
    assert found["floor_of"] == "H200" and found["floor_s"] == pytest.approx(0.004, rel=0.02)
    assert found["reached_flops_per_s"] == pytest.approx(2042.9e9 / 0.011, rel=1e-3)
