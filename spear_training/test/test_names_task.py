"""The image encoder learns the words of what its patches show; the reader of words is dropped."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console
from test_stage1 import ALONE, CPU, micro_model

from spear_policy.model.checkpoint import load_weights
from spear_policy.model.spear import build
from spear_training.annotation.records import GivenDepth, GivenObject, Item, encode_mask
from spear_training.recipes.tiny import tiny_names
from spear_training.train.config import TrainingError, with_changes
from spear_training.train.names_task import words_of
from spear_training.train.train import train

COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200)}
KINDS = {"mug": (14, 14), "long tray": (14, 42)}  # height and width in pixels


def write_scenes(folder, count):
    """Pictures of two rectangles each, on whole patches of a grid of 14 pixels."""
    lines = []
    for name in ("images", "depth"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        picture, objects = np.full((42, 56, 3), 120, np.uint8), []
        rows = rng.permutation(3)
        for row, (kind, (height, width)) in zip(rows, KINDS.items(), strict=False):
            colour = list(COLOURS)[rng.integers(2)]
            left = 14 * int(rng.integers(0, (56 - width) // 14 + 1))
            mask = np.zeros((42, 56), bool)
            mask[14 * row : 14 * row + height, left : left + width] = True
            picture[mask] = COLOURS[colour]
            objects.append(GivenObject(f"{colour} {kind}", mask=encode_mask(mask)))
        cv2.imwrite(str(folder / f"images/{number}.png"), picture[..., ::-1])
        cv2.imwrite(str(folder / f"depth/{number}.png"), np.full((42, 56), 1000, np.uint16))
        depth = GivenDepth(f"depth/{number}.png", 1000.0)
        item = Item(str(number), f"images/{number}.png", tuple(objects), depth=depth)
        lines.append(item.to_json())
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def recipe(folder, *changes):
    """A small training on these pictures."""
    config = replace(tiny_names(), model=micro_model(), batch_size=8)
    return with_changes(config, [f"task.folder={folder}", "optimiser.warmup_steps=5", *changes])


def test_patches_have_the_words_of_the_object_that_covers_them(tmp_path):
    folder = write_scenes(tmp_path, 12)
    config = recipe(folder)
    task = config.task.make(config, CPU)
    assert task._words == ("blue", "long", "mug", "red", "tray")
    batch = task.source(0, 1)[0]
    assert batch.shown.shape == (8, 12, 5)
    items = {json.loads(line)["id"]: json.loads(line) for line in (folder / "items.jsonl").open()}
    for name, shown in zip(batch.names, batch.shown.numpy(), strict=True):
        labels = [each["label"] for each in items[name]["objects"]]
        assert shown.any(axis=1).sum() == 4  # a patch of the mug and three of the tray
        found = {" ".join(w for w in label.split()) for label in labels}
        words = {tuple(np.array(task._words)[row > 0]) for row in shown if row.any()}
        assert words == {tuple(sorted(label.split())) for label in found}
    halves = [task.source(rank, 2)[0] for rank in range(2)]
    assert torch.equal(torch.cat([half.shown for half in halves]), batch.shown)


def test_the_image_encoder_learns_words_and_their_reader_is_dropped(tmp_path):
    folder, held = write_scenes(tmp_path / "train", 64), write_scenes(tmp_path / "held", 8)
    changes = ["steps=150", "optimiser.peak_learning_rate=3e-3", "validate_every=150"]
    config = recipe(folder, *changes, f"task.held_out={held}", "log_every=150")
    assert train(config, tmp_path / "run", ALONE, console=Console(quiet=True)) == 0
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["words_f1_held_out"] > 0.7
    model, _ = load_weights(tmp_path / "run/final")
    start = build(config.model, seed=config.seed)
    assert torch.equal(model.depth.patch.weight, start.depth.patch.weight)
    assert not torch.equal(model.siglip.patch.weight, start.siglip.patch.weight)
    assert "mug" in json.loads((tmp_path / "run/final/training.json").read_text())["words"]
    # From another stage's folder everything else is kept.
    further = replace(config, start=str(tmp_path / "run/final"))
    again = further.task.make(further, CPU).build_model()
    assert torch.equal(again.siglip.patch.weight, model.siglip.patch.weight)


def test_pictures_without_masks_or_names_and_another_model_are_refused(tmp_path):
    folder = write_scenes(tmp_path / "scenes", 2)
    config = recipe(folder)
    with pytest.raises(TrainingError, match="no word names objects of 5 pictures"):
        config.task.make(config, CPU)
    bare = tmp_path / "bare"
    bare.mkdir()
    line = {"id": "a", "image": "a.png", "depth": {"path": "a.png", "units_per_m": 1000}}
    (bare / "items.jsonl").write_text(json.dumps(line) + "\n")
    config = recipe(bare)
    with pytest.raises(TrainingError, match="no picture has an object with a mask"):
        config.task.make(config, CPU)
    many = write_scenes(tmp_path / "many", 12)
    config = replace(recipe(many), start=str(tmp_path / "nowhere"))
    with pytest.raises(TrainingError, match="start: .*nowhere"):
        config.task.make(config, CPU).build_model()
    assert words_of([Item("a", "a.png", (GivenObject("mug"),))]) == ()
