"""The segmenter `sam2` with a real, tiny SAM 2 of random weights.

What random weights cannot show, that a mask lies where its box is, is shown with logits put in
the place of the network's; everything around the network is the real thing.
"""

import json
import shutil
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stage_frames import frame_of, labels, reasons
from tiny_networks import SAM2_SIDE_PX, save_sam2

from spear_training.annotation.frame import Candidate
from spear_training.annotation.sam2 import Sam2Options, Sam2Segmenter, segment
from spear_training.annotation.stages import JobError

pytest.importorskip("transformers", reason="the segmenter sam2 needs transformers")

BOWL = Candidate("bowl", (84.0, 63.0, 420.0, 315.0), 0.5)
MUG = Candidate("mug", (500.0, 300.0, 700.0, 600.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write the tiny SAM 2."""
    folder = tmp_path_factory.mktemp("sam2")
    save_sam2(folder)
    return folder


class FixedLogits(torch.nn.Module):
    """In the network's place: says the same logits (N, h, w), remembers what it was given."""

    def __init__(self, logits):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(prompt_encoder_config=SimpleNamespace(image_size=1024))
        self.logits = torch.as_tensor(logits, dtype=torch.float32)

    def forward(self, pixel_values, input_boxes, multimask_output):
        """Take the inputs of transformers' Sam2Model."""
        assert multimask_output is False
        self.pixels, self.boxes = pixel_values, input_boxes
        return SimpleNamespace(pred_masks=self.logits[None, :, None])


def with_logits(logits, **options):
    """Return a segmenter whose network says these logits, and the network."""
    network = FixedLogits(logits)
    segmenter = Sam2Segmenter(Sam2Options(**options))
    segmenter._model._load = lambda: network
    return segmenter, network


def test_each_candidate_gets_a_mask_near_its_box(folder):
    segmenter = Sam2Segmenter(Sam2Options(str(folder), device="cpu"))
    frame = segmenter(frame_of(candidates=[BOWL, MUG]))
    assert len(frame.candidates) + len(frame.dropped) == 2
    assert frame.candidates, "random weights gave no mask at all"
    for found in frame.candidates:
        assert found.mask.shape == (630, 840) and found.mask.dtype == bool
        left, top, right, bottom = found.box_xyxy_px
        rows, columns = np.nonzero(found.mask)
        assert left - 0.1 * (right - left) - 1 <= columns.min()
        assert columns.max() <= right + 0.1 * (right - left)
        assert top - 0.1 * (bottom - top) - 1 <= rows.min()
        assert rows.max() <= bottom + 0.1 * (bottom - top)
    assert [found.score for found in frame.candidates if found.label == "bowl"] == [0.5]


def test_the_masks_depend_on_the_picture_and_on_the_box_and_repeat(folder):
    segmenter = Sam2Segmenter(Sam2Options(str(folder), device="cpu"))
    boxes = np.array([BOWL.box_xyxy_px, MUG.box_xyxy_px])
    with segmenter._model.held() as model:
        image = frame_of().image
        first = segment(model, image, boxes)
        assert np.array_equal(segment(model, image, boxes), first)
        # Alone or with others: a box gets the same mask.
        assert np.array_equal(segment(model, image, boxes[1:])[0], first[1])
        assert not np.array_equal(first[0], first[1])
        assert not np.array_equal(segment(model, 255 - image, boxes), first)


def test_the_network_gets_the_picture_and_the_boxes_in_its_own_square():
    segmenter, network = with_logits(np.ones((2, 256, 256)))
    frame = frame_of(candidates=[BOWL, MUG])
    segmenter(frame)
    assert network.boxes.shape == (1, 2, 4)
    assert network.boxes[0, 0].tolist() == pytest.approx([102.4, 102.4, 512, 512], abs=1e-3)
    assert network.pixels.shape == (1, 3, 1024, 1024)
    # ImageNet's mean and deviation of each channel, of a picture between 0 and 1.
    means = frame.image.reshape(-1, 3).mean(axis=0) / 255
    expected = (means - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert network.pixels.mean(dim=(0, 2, 3)).numpy() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("side", [32, 256])
def test_logits_become_pixels_without_a_shift(side):
    logits = np.full((1, side, side), -1.0)
    quarter = side // 4
    logits[0, quarter : 2 * quarter, 2 * quarter : 3 * quarter] = 1.0
    whole = Candidate("table", (0.0, 0.0, 840.0, 630.0))
    segmenter, _ = with_logits(logits)
    (found,) = segmenter(frame_of(candidates=[whole])).candidates
    rows, columns = np.nonzero(found.mask)
    assert (columns.min(), columns.max() + 1) == pytest.approx((420, 630), abs=1)
    assert (rows.min(), rows.max() + 1) == pytest.approx((157.5, 315), abs=1)


def test_a_mask_ends_a_little_beyond_its_box():
    segmenter, _ = with_logits(np.ones((1, 256, 256)))
    (found,) = segmenter(frame_of(candidates=[BOWL])).candidates
    rows, columns = np.nonzero(found.mask)
    assert (columns.min(), columns.max() + 1) == (84 - 34, 420 + 34)
    assert (rows.min(), rows.max() + 1) == (63 - 26, 315 + 26)
    exact, _ = with_logits(np.ones((1, 256, 256)), box_margin=0.0)
    (found,) = exact(frame_of(candidates=[BOWL])).candidates
    assert found.mask.sum() == 336 * 252


def test_no_mask_reaches_into_padding():
    upright = frame_of(480, 640, candidates=[Candidate("shelf", (200.0, 0.0, 640.0, 630.0))])
    segmenter, _ = with_logits(np.ones((1, 256, 256)))
    (found,) = segmenter(upright).candidates
    assert not (found.mask & ~upright.visible).any() and found.mask.any()


def test_a_mask_without_a_pixel_drops_its_object_and_no_other():
    logits = np.ones((2, 256, 256))
    logits[0] = -1
    segmenter, _ = with_logits(logits)
    frame = segmenter(frame_of(candidates=[BOWL, MUG]))
    assert labels(frame.candidates) == ["mug"]
    assert reasons(frame) == {"bowl": "its mask is empty"}


def test_no_candidates_need_no_model():
    segmenter = Sam2Segmenter(Sam2Options("/no/such/folder"))
    assert segmenter(frame_of()).candidates == ()


def test_bfloat16_works(folder):
    segmenter = Sam2Segmenter(Sam2Options(str(folder), device="cpu", dtype="bfloat16"))
    with segmenter._model.held() as model:
        assert next(model.parameters()).dtype == torch.bfloat16
        assert model.config.prompt_encoder_config.image_size == SAM2_SIDE_PX
        masks = segment(model, frame_of().image, np.array([BOWL.box_xyxy_px]))
    assert masks.shape == (1, 630, 840)


def test_threads_take_turns_and_load_the_model_once(folder):
    segmenter = Sam2Segmenter(Sam2Options(str(folder), device="cpu"))
    load, loads, found = segmenter._model._load, [], []
    segmenter._model._load = lambda: (loads.append(1), load())[1]
    frame = frame_of(candidates=[BOWL, MUG])
    threads = [threading.Thread(target=lambda: found.append(segmenter(frame))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1 and len(found) == 3
    assert len({tuple(one.mask.sum() for one in frame.candidates) for frame in found}) == 1


def damaged(folder, tmp_path, damage):
    """Return a copy of a model's folder with damage done to it."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    damage(copy)
    return copy


def change_config(folder, **changes):
    """Change values in a model's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def halve_weights(folder):
    """Take away half of a model's weights."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    kept = dict(list(weights.items())[::2])
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def test_the_checkpoint_of_a_video_model_serves_as_well(folder, tmp_path):
    # As the public SAM 2.1 is: its config says sam2_video.
    copy = damaged(folder, tmp_path, lambda copy: change_config(copy, model_type="sam2_video"))
    frame = frame_of(candidates=[BOWL, MUG])
    found = Sam2Segmenter(Sam2Options(str(copy), device="cpu"))(frame)
    same = Sam2Segmenter(Sam2Options(str(folder), device="cpu"))(frame)
    assert found.candidates and len(found.candidates) == len(same.candidates)
    for one, other in zip(found.candidates, same.candidates, strict=True):
        assert np.array_equal(one.mask, other.mask)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda copy: shutil.rmtree(copy), "cannot be loaded"),
        (lambda copy: (copy / "config.json").write_text("{"), "cannot be loaded"),
        (lambda copy: (copy / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda copy: (copy / "model.safetensors").write_bytes(b"no"), "cannot be loaded"),
        (lambda copy: change_config(copy, model_type="bert"), "is bert, but sam2 or sam2_video"),
        (halve_weights, "not whole: .* weights are missing"),
    ],
)
def test_a_model_that_cannot_be_loaded_stops_the_job(folder, tmp_path, damage, said):
    copy = damaged(folder, tmp_path, damage)
    with pytest.raises(JobError, match=f"the model {copy} .*{said}|the model {copy} {said}"):
        Sam2Segmenter(Sam2Options(str(copy), device="cpu"))(frame_of(candidates=[BOWL]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"box_margin": -0.1}, "box_margin is -0.1"),
        ({"box_margin": float("nan")}, "box_margin is nan"),
    ],
)
def test_a_setting_that_cannot_work_is_named(options, said):
    with pytest.raises(JobError, match=said):
        Sam2Options(**options)


def test_a_device_that_is_not_there_stops_the_job(folder):
    segmenter = Sam2Segmenter(Sam2Options(str(folder), device="tpu:7"))
    with pytest.raises(JobError, match="no device 'tpu:7'"):
        segmenter(frame_of(candidates=[BOWL]))


def test_a_device_without_memory_stops_the_job():
    segmenter, network = with_logits(np.ones((1, 256, 256)))
    network.forward = _no_memory  # a full GPU is played
    with pytest.raises(JobError, match="no memory left .*smaller model"):
        segmenter(frame_of(candidates=[BOWL]))


def _no_memory(**inputs):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")


@pytest.mark.parametrize(
    ("library", "said"),
    [
        (None, "Sam2Model needs transformers: pip install"),
        (SimpleNamespace(__version__="4.40.0"), "transformers 4.40.0 has no Sam2Model.*--upgrade"),
    ],
)
def test_without_transformers_the_job_stops_and_says_how_to_get_it(monkeypatch, library, said):
    monkeypatch.setitem(sys.modules, "transformers", library)
    with pytest.raises(JobError, match=said):
        Sam2Segmenter(Sam2Options(device="cpu"))(frame_of(candidates=[BOWL]))


def test_settings_hold_what_the_masks_depend_on():
    options = Sam2Options("some/model", device="cuda:1", box_margin=0.2)
    assert Sam2Segmenter(options).settings == {
        "model": "some/model",
        "dtype": "float32",
        "box_margin": 0.2,
    }
