"""A checkpoint folder comes back as it was saved, or is refused in one sentence."""

import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from toy_models import MICRO, micro, observation

from spear_policy.model.checkpoint import (
    CheckpointError,
    kept_in_fp32,
    load_weights,
    save_weights,
)
from spear_policy.model.config import LanguageConfig
from spear_policy.model.spear import SpearModel
from spear_policy.model.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer(MICRO.vocabulary)
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder, hashes, model); tests that change the folder work on `copy`."""
    folder, model = tmp_path_factory.mktemp("saved") / "micro", micro()
    return folder, save_weights(folder, model, TOKENIZER), model


@pytest.fixture
def copy(saved, tmp_path):
    return Path(shutil.copytree(saved[0], tmp_path / "copy"))


def rewrite(folder, change):
    """Let `change` edit the dict of tensors in the folder."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def refused(folder, *parts, **arguments):
    """The message of the refusal, which is one sentence with the parts in it."""
    with pytest.raises(CheckpointError) as found:
        load_weights(folder, **arguments)
    message = str(found.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
    return message


@torch.no_grad()
def test_what_is_saved_is_what_is_loaded(saved):
    folder, hashes, model = saved
    loaded, tokenizer = load_weights(folder, expected_hashes=hashes)
    assert loaded.config == model.config and not loaded.training
    for (name, a), (other, b) in zip(
        model.named_parameters(), loaded.named_parameters(), strict=True
    ):
        assert name == other and a.dtype == b.dtype and torch.equal(a, b)
        assert a.requires_grad == b.requires_grad
    assert tokenizer.encode("put the red cube <coord0007>") == TOKENIZER.encode(
        "put the red cube <coord0007>"
    )
    noise, tau = torch.randn(2, 5, 8), torch.rand(2)
    arguments = observation(), noise, tau
    assert torch.equal(model.velocity(*arguments), loaded.velocity(*arguments))


def test_the_hashes_are_the_files_sha256(saved):
    folder, hashes, _ = saved
    assert set(hashes) == {path.name for path in folder.iterdir()}
    output = subprocess.run(["sha256sum", *hashes], capture_output=True, text=True, cwd=folder)
    assert [line.split()[0] for line in output.stdout.splitlines()] == list(hashes.values())


@torch.no_grad()
def test_in_bf16_the_norms_and_the_velocitys_head_stay_fp32(saved):
    folder, _, model = saved
    loaded, _ = load_weights(folder, dtype=torch.bfloat16)
    kept = kept_in_fp32(loaded)
    assert {"expert.action_out.weight", "expert.action_out.bias", "language.norm.weight"} < kept
    assert "expert.stack.layers.0.norm2.weight" in kept
    originals = dict(model.named_parameters())
    for name, values in loaded.named_parameters():
        assert values.dtype == (torch.float32 if name in kept else torch.bfloat16)
        assert torch.equal(values, originals[name].to(values.dtype))
    assert "expert.action_in.weight" not in kept and "siglip.norm.weight" not in kept
    noise, tau = torch.randn(2, 5, 8), torch.rand(2)
    exact = model.velocity(observation(), noise, tau)
    rounded = loaded.velocity(observation(), noise, tau)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).norm() <= 0.05 * exact.norm()


def test_a_bf16_checkpoint_is_loaded_as_stored(saved, tmp_path):
    half, _ = load_weights(saved[0], dtype=torch.bfloat16)
    save_weights(tmp_path / "half", half, TOKENIZER)
    again, _ = load_weights(tmp_path / "half")
    for a, b in zip(half.parameters(), again.parameters(), strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)


def test_loaded_weights_do_not_depend_on_the_file_any_more(copy):
    loaded, _ = load_weights(copy)
    before = [values.clone() for values in loaded.parameters()]
    (copy / WEIGHTS).write_bytes(b"")
    assert all(map(torch.equal, before, loaded.parameters()))


LARGE = replace(  # 422 MB in fp32
    MICRO, language=LanguageConfig(width=1024, layers=4, mlp_width=8192, heads=4, head_dim=64)
)
# ru_maxrss would be of no use: a child begins with its parent's.
MEASURE = """
import sys
import torch
from spear_policy.model.checkpoint import load_weights

def resident_bytes(kind):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(kind))

folder, small, dtype = sys.argv[1:]
load_weights(small)  # what loading itself needs, whatever the model
before = resident_bytes("VmRSS")
load_weights(folder, dtype=getattr(torch, dtype, None))
print(resident_bytes("VmHWM") - before)
"""


@pytest.mark.parametrize(("dtype", "copies"), [("as stored", 1.4), ("bfloat16", 0.9)])
def test_loading_never_needs_the_model_twice_in_memory(saved, tmp_path, dtype, copies):
    folder = Path(shutil.copytree(saved[0], tmp_path / "large"))
    with torch.device("meta"):
        empty = SpearModel(LARGE).state_dict()
    save_file({name: torch.zeros(v.shape) for name, v in empty.items()}, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps(LARGE.to_dict()))
    size = (folder / WEIGHTS).stat().st_size
    assert size > 400e6
    command = [sys.executable, "-c", MEASURE, folder, saved[0], dtype]
    output = subprocess.run(command, capture_output=True, text=True)
    assert output.returncode == 0, output.stderr
    grown = int(output.stdout)
    assert grown > 0.45 * size  # the measurement sees the weights
    assert grown < copies * size


def test_a_missing_extra_or_misshapen_tensor_is_named(copy):
    rewrite(copy, lambda t: t.pop("expert.state_in.bias"))
    refused(copy, copy / WEIGHTS, "lacks tensor 'expert.state_in.bias'", "copy both files")
    rewrite(copy, lambda t: t.update({"expert.state_in.bias": torch.zeros(33)}))
    refused(copy, copy / WEIGHTS, "'expert.state_in.bias' is (33,)", "needs (32,)")
    rewrite(copy, lambda t: t.update({"expert.state_in.bias": torch.zeros(32)}))
    rewrite(copy, lambda t: t.update(left=torch.zeros(1), over=torch.zeros(1)))
    refused(copy, "has the unknown tensor 'left' and 1 more", "config.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_tensor_with_one_nan_or_infinity_is_named(copy, value):
    def spoil(tensors):
        tensors["language.layers.2.down.weight"][3, 5] = value

    rewrite(copy, spoil)
    for dtype in (None, torch.bfloat16):
        refused(copy, copy / WEIGHTS, "'language.layers.2.down.weight'", "NaN", dtype=dtype)


def test_what_overflows_in_the_wanted_dtype_is_named(copy):
    rewrite(copy, lambda t: t["tokens.words"].fill_(1e6))
    load_weights(copy, dtype=torch.bfloat16)
    refused(copy, "'tokens.words' has NaN or infinity in float16", dtype=torch.float16)


def test_integers_and_a_mixture_of_dtypes_are_refused(copy):
    rewrite(copy, lambda t: t.update({"tokens.words": t["tokens.words"].bfloat16()}))
    refused(copy, "stores", "torch.bfloat16", "torch.float32", "which dtype")
    load_weights(copy, dtype=torch.float32)
    rewrite(copy, lambda t: t.update({"tokens.words": t["tokens.words"].to(torch.int8)}))
    refused(copy, "'tokens.words' is not floating-point", "quantised")
    with pytest.raises(ValueError, match="dtype is torch.int8"):
        load_weights(copy, dtype=torch.int8)


def test_a_wrong_hash_is_refused(saved, copy):
    _, hashes, _ = saved
    rewrite(copy, lambda t: t["fusion.siglip_projector.bias"].add_(1e-3))
    load_weights(copy)
    refused(copy, copy / WEIGHTS, hashes[WEIGHTS][:12], "its card", expected_hashes=hashes)
    refused(copy, copy / WEIGHTS, "its card", expected_hashes={WEIGHTS: ""})


# Each keeps every shape: without a hash it loads and makes another chunk.
SILENT = [
    ("flow", "rotation_frame", "base"),
    ("flow", "rotation", "r4"),
    ("depth", "output_layers", [0, 1, 2, 3]),
    ("siglip", "heads", 2),
    ("language", "rope_base", 500.0),
]


@pytest.mark.parametrize(("part", "field", "value"), SILENT)
def test_an_edit_of_the_config_that_keeps_every_shape_is_refused(saved, copy, part, field, value):
    path = copy / "config.json"
    values = json.loads(path.read_text())
    values[part][field] = value
    path.write_text(json.dumps(values, indent=2) + "\n")
    load_weights(copy)
    refused(copy, path, "its card", "copy the file", expected_hashes=saved[1])


def test_another_tokenizer_of_the_same_vocabulary_is_refused(saved, copy):
    path = copy / "tokenizer.json"
    path.write_text(path.read_text() + "\n")
    load_weights(copy)
    refused(copy, path, "its card", expected_hashes=saved[1])


@settings(deadline=None, max_examples=25)
@given(share=st.floats(0.0, 0.9999))
def test_a_file_cut_anywhere_is_refused(saved, tmp_path_factory, share):
    folder = Path(shutil.copytree(saved[0], tmp_path_factory.mktemp("cut") / "cut"))
    size = (folder / WEIGHTS).stat().st_size
    os.truncate(folder / WEIGHTS, int(share * size))
    refused(folder, folder / WEIGHTS, "copy it again")
    shutil.rmtree(folder)


def test_what_is_no_checkpoint_folder_is_refused(copy, tmp_path):
    refused(tmp_path / "nowhere", "not a checkpoint folder", "config.json")
    refused(copy / "config.json", "not a checkpoint folder")
    for name in (WEIGHTS, "tokenizer.json", "config.json"):
        (copy / name).unlink()
        refused(copy, copy / name)


def test_a_damaged_config_is_refused_by_file_and_field(copy):
    path = copy / "config.json"
    values = json.loads(path.read_text())
    path.write_text(path.read_text()[:-40])
    refused(copy, path, "not JSON")
    path.write_text("[]")
    refused(copy, path, "not a JSON object")
    path.write_text(json.dumps(values | {"chunk": 5}))
    refused(copy, path, "unknown field 'chunk'")
    values["language"]["width"] = -64
    path.write_text(json.dumps(values))
    refused(copy, path)


def test_the_tokenizer_of_another_model_is_refused(copy, tmp_path):
    path = copy / "tokenizer.json"
    path.write_text(path.read_text().replace("<coord0005>", "<other>"))
    refused(copy, "<coord0005>", path)
    other = replace(MICRO.vocabulary, coordinate_tokens=32)
    with pytest.raises(ValueError, match="another vocabulary"):
        save_weights(tmp_path / "new", micro(), train_tokenizer(other))
    assert list(tmp_path.iterdir()) == [copy]


def test_a_model_with_nan_or_without_values_is_not_saved(tmp_path):
    model = micro()
    with torch.no_grad():
        model.expert.action_out.bias[2] = float("nan")
    with pytest.raises(ValueError, match="'expert.action_out.bias' has NaN"):
        save_weights(tmp_path / "new", model, TOKENIZER)
    with torch.device("meta"):
        empty = SpearModel(MICRO)
    with pytest.raises(ValueError, match="meta device"):
        save_weights(tmp_path / "new", empty, TOKENIZER)
    assert not list(tmp_path.iterdir())


def test_saving_again_replaces_the_three_files_and_keeps_the_others(copy):
    (copy / "card.json").write_text("{}")
    model = micro(seed=5)
    hashes = save_weights(copy, model, TOKENIZER)
    loaded, _ = load_weights(copy, expected_hashes=hashes)
    assert all(map(torch.equal, model.parameters(), loaded.parameters()))
    names = {path.name for path in copy.iterdir()}
    assert names == {"card.json", "config.json", WEIGHTS, "tokenizer.json"}
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(saved, copy):
    _, hashes, _ = saved
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError):
            save_weights(copy, micro(seed=5), TOKENIZER)
        with pytest.raises(OSError):
            save_weights(copy.with_name("new"), micro(seed=5), TOKENIZER)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    load_weights(copy, expected_hashes=hashes)
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_progress_is_drawn_on_a_terminal_only(saved, capfd):
    folder, hashes, _ = saved
    load_weights(folder, expected_hashes=hashes, progress=True)
    assert capfd.readouterr() == ("", "")
    code = "import sys; from spear_policy.model.checkpoint import load_weights as load\n"
    code += "hashes = {'model.safetensors': sys.argv[2]}\n"
    code += "for asked in (False, True):\n"
    code += "    load(sys.argv[1], expected_hashes=hashes, progress=asked)\n"
    code += "    print(f'progress={asked}', file=sys.stderr, flush=True)"
    terminal, child = os.openpty()
    command = [sys.executable, "-c", code, folder, hashes[WEIGHTS]]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    environment.pop("NO_COLOR", None)
    subprocess.run(command, stderr=child, env=environment, check=True)
    os.close(child)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    without, shown = shown.split("progress=False")
    assert "loading micro" not in without
    assert "loading micro" in shown
