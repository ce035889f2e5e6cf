"""Stage 1 through the training loop: its batches, what it learns, what it leaves and refuses."""

import json
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from inspect_runs import run_with_pictures
from inspect_runs import shelf as grey_shelf
from question_fixture import BOWL, MUG, picture, shelf
from rgbd_list import write_list
from rich.console import Console

from spear_policy.inference.make_checkpoint import main as make_checkpoint
from spear_policy.model.answers import Box
from spear_policy.model.checkpoint import load_weights
from spear_policy.model.config import (
    CameraConfig,
    DepthEncoderConfig,
    LanguageConfig,
    SiglipConfig,
    VocabularyConfig,
)
from spear_policy.model.coordinate_bins import CoordinateBins
from spear_policy.model.spear import build
from spear_training.evaluation import command as evaluate
from spear_training.evaluation import vlm_accuracy as accuracy_module
from spear_training.evaluation.vlm_accuracy import Baselines, vlm_accuracy
from spear_training.recipes.stage1 import vlm_3d, vlm_align
from spear_training.recipes.tiny import tiny_depth, tiny_vlm_3d, tiny_vlm_align
from spear_training.train import command
from spear_training.train.config import TrainingError, with_changes
from spear_training.train.depth_task import affine_aligned
from spear_training.train.distributed import Processes
from spear_training.train.metrics import sample_cost
from spear_training.train.optimiser import parts_of
from spear_training.train.train import train
from spear_training.vqa.bins import FittedBins
from spear_training.vqa.dataset import VqaSet
from spear_training.vqa.pairs import Pair

CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU)
BINS = CoordinateBins.normal(0.5, 1.0, -2.0, 4.0, 64)


def micro_model(name="micro"):
    """A model that learns two pictures by heart in seconds."""
    return replace(
        tiny_vlm_align().model,
        name=name,
        cameras=(CameraConfig("external", 56, 42),),
        siglip=SiglipConfig(width=32, layers=1, heads=2, mlp_width=64, position_grid=4),
        depth=DepthEncoderConfig(
            width=32, layers=2, heads=2, mlp_width=64, output_layers=(1,), position_grid=4
        ),
        language=LanguageConfig(width=48, layers=2, mlp_width=96, heads=2, head_dim=24),
        vocabulary=VocabularyConfig(size=512, loc_begin=448, loc_tokens=64, coordinate_tokens=64),
    )


def with_bins(folder, annotations, bins=BINS):
    """Write a run with pictures and bins; returns the folder of its records."""
    out = run_with_pictures(folder, annotations)
    FittedBins(bins, (), -2.0, 4.0, 0.0).save(out / "bins.json")
    return out


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The folder of four annotated pictures."""
    return with_bins(tmp_path_factory.mktemp("four"), [shelf(number) for number in range(4)])


def recipe(folder, *changes, make=tiny_vlm_3d, **parts):
    """A small training on a folder of records."""
    config = make()
    task = replace(config.task, folders={"world": str(folder)})
    small = replace(config, model=micro_model(), task=task, batch_size=4, **parts)
    optimiser = replace(small.optimiser, warmup_steps=2)
    return with_changes(replace(small, optimiser=optimiser), ["workers=0", "steps=4", *changes])


# Batches ----------------------------------------------------------------------------------------


def test_a_batch_depends_on_seed_and_step_alone_and_processes_share_it(pictures):
    task = recipe(pictures).task.make(recipe(pictures), CPU)
    whole = task.source(0, 1)
    first, again, later = whole[3], task.source(0, 1)[3], whole[4]
    assert torch.equal(first.ids, again.ids) and torch.equal(first.pictures, again.pictures)
    assert first.names != later.names or not torch.equal(first.ids, later.ids)
    halves = [task.source(rank, 2)[3] for rank in range(2)]
    assert halves[0].names + halves[1].names == first.names
    assert torch.equal(torch.cat([half.pictures for half in halves]), first.pictures)
    other = recipe(pictures, "seed=1")
    assert not torch.equal(other.task.make(other, CPU).source(0, 1)[3].ids, first.ids)


def test_micro_batches_have_the_loss_of_the_batch_and_3d_tokens_count_twice(pictures):
    config = recipe(pictures)
    task, model = config.task.make(config, CPU), build(config.model)
    batch = task.source(0, 1)[0]
    (whole,), parts = task.split(batch, 1), task.split(batch, 4)
    count = task.denominator(whole)
    assert count == sum(map(task.denominator, parts)) == int(batch.answer.sum())
    loss, values = task.loss(model, whole, count)
    summed = sum(task.loss(model, part, count)[0].item() for part in parts)
    assert summed == pytest.approx(loss.item(), rel=1e-4)
    assert float(values["token_accuracy"][1]) == count
    once = recipe(pictures, "task.coordinate_weight=1")
    single = once.task.make(once, CPU).loss(model, whole, count)[0]
    assert single.item() < loss.item() < 2 * single.item()


# Learning, and what is left ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """(records, run folder) of a model that has learnt two pictures by heart."""
    folder = tmp_path_factory.mktemp("learnt")
    records = with_bins(folder, [grey_shelf("a", "mug"), grey_shelf("b", "plate", "bowl")])
    changes = ["steps=160", "batch_size=8", "optimiser.peak_learning_rate=3e-3", "ema_decay=0.9"]
    changes += [f"task.held_out={records}", "validate_every=160", "log_every=50"]
    config = recipe(records, *changes)
    assert train(config, folder / "run", ALONE, console=Console(quiet=True)) == 0
    return records, folder / "run"


def test_what_is_learnt_by_heart_is_answered_and_measured_as_right(learnt):
    records, run = learnt
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["box/grammatical"] == 1.0
    assert last["box/error_m"] < 0.1 < last["box/mean_place_error_m"]


def test_the_exported_folder_becomes_a_model_of_stage_2(learnt, tmp_path, monkeypatch, capsys):
    records, run = learnt
    record = json.loads((run / "final/training.json").read_text())
    assert record["recipe"] == "tiny_vlm_3d" and record["step"] == 160
    assert FittedBins.load(run / "final/bins.json").bins == BINS
    words = ["make_checkpoint", "--preset", "tiny", "--stage1", str(run / "final")]
    monkeypatch.setattr("sys.argv", [*words, "--output", str(tmp_path / "stage2")])
    make_checkpoint()
    assert "random: expert" in capsys.readouterr().out
    whole, _ = load_weights(tmp_path / "stage2")
    vlm, _ = load_weights(run / "final")
    assert torch.equal(whole.language.layers[0].qkv.weight, vlm.language.layers[0].qkv.weight)


def test_evaluate_writes_a_page_with_boxes_curves_and_the_same_numbers(learnt, capsys):
    records, run = learnt
    page = run / "accuracy.html"
    words = [
        "vlm",
        "--checkpoint",
        run / "final",
        "--pictures",
        records,
        "--mixture",
        "world_boxes",
    ]
    words += ["--trained-on", f"world={records}", "--metrics", run / "metrics.jsonl", "--out", page]
    assert evaluate.main([str(word) for word in words]) == 0
    numbers = json.loads(page.with_suffix(".json").read_text())
    assert numbers["box/grammatical"] == 1.0 and numbers["box/error_m"] < 0.1
    text = page.read_text()
    assert "100.0 %" in text and "grammatical boxes" in text
    assert text.count("data:image/jpeg;base64") >= 2 and "data:image/svg+xml" in text


def test_evaluate_names_what_it_lacks_and_writes_nothing(learnt, tmp_path, capsys):
    records, run = learnt
    words = ["vlm", "--checkpoint", str(tmp_path), "--pictures", str(records)]
    words += ["--trained-on", f"world={records}", "--mixture", "world_boxes"]
    assert evaluate.main([*words, "--out", str(tmp_path / "page.html")]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/run.json").write_bytes(b"\xff")
    words[2:5] = [str(run / "final"), "--pictures", str(tmp_path / "pictures")]
    assert evaluate.main([*words, "--out", str(tmp_path / "page.html")]) == 2
    printed = capsys.readouterr().err
    assert "run.json is damaged" in printed and not (tmp_path / "page.html").exists()


# Measured accuracy ------------------------------------------------------------------------------


@pytest.fixture
def answered(pictures, monkeypatch):
    """A function that measures answers which it makes from the true ones."""
    config = recipe(pictures)
    task, model = config.task.make(config, CPU), build(config.model)
    grammar, asked = task.grammar, VqaSet(pictures, task._samples.sets["world"].settings, BINS)
    baselines = Baselines({"box": np.zeros(3), "keypoints": np.zeros(3)})

    def measure(reply):
        true = []
        for number in range(len(asked)):
            example = asked.example(number, 0).example
            true += [(pair, number) for pair in (example.pairs if example else ())]
        lengths = [len(grammar.format_ids(pair.answer)) for pair, _ in true]
        order = sorted(range(len(true)), key=lambda i: (lengths[i], true[i][1]))
        replies = [reply(grammar, true[i][0]) for i in order]

        def answer(_, inputs, longest):
            part = replies[: len(inputs.text_ids)]
            del replies[: len(part)]
            return part

        monkeypatch.setattr(accuracy_module, "answer", answer)
        return vlm_accuracy(model, grammar, asked, baselines)

    return measure


def test_true_answers_have_only_the_error_of_the_bins(answered):
    found = answered(lambda grammar, pair: grammar.format_ids(pair.answer))
    assert found.grammatical.value == 1.0 and found.token_accuracy == 1.0
    assert found.of("box").errors_m()[:, 0].max() < 0.1  # 64 bins over six metres


def test_a_shifted_answer_has_the_shift_as_error_beside_that_of_the_baselines(answered):
    def shifted(grammar, pair):
        answer = pair.answer
        if isinstance(answer, Box):
            answer = Box(tuple((x + 0.4, y, z) for x, y, z in answer.vertices_m))
        return grammar.format_ids(answer)

    errors = answered(shifted).of("box").errors_m()
    assert errors[:, 0] == pytest.approx(0.4, abs=0.1)
    assert (errors[:, 1] > 0.8).all()  # the mean place was given as the camera's own


def test_answers_that_are_not_of_their_kind_are_counted_and_have_no_error(answered):
    found = answered(lambda grammar, pair: grammar.format_ids(pair.answer)[:-3])
    assert found.grammatical.count == 0 and found.grammatical.interval[1] < 0.5
    assert len(found.errors_m()) == 0 and np.isnan(found.answered[0].error_m)
    assert all(each.problem for each in found.answered)


def test_the_flat_baseline_sees_the_2d_box_at_the_mean_depth():
    annotation = picture(MUG, BOWL)
    baselines = Baselines({"box": np.array([0.0, 0.0, 2.0])})
    pair = Pair("box", ("bowl",), ("where is the bowl?",), Box(BOWL.vertices_m))
    mean, flat = baselines.errors_m(pair, annotation)
    assert mean == pytest.approx(np.linalg.norm([0.4, 0.0, -0.5]))
    x, y = (420 - 419.5) / 700 * 2, (315 - 314.5) / 600 * 2
    assert flat == pytest.approx(np.linalg.norm([x - 0.4, y, 0.5]))


# The depth encoder ------------------------------------------------------------------------------


def test_scale_and_shift_of_a_depth_prediction_do_not_matter():
    true = torch.rand(2, 6, 8) + 0.5
    valid = torch.rand(2, 6, 8) > 0.2
    found = affine_aligned(-3.0 * true + 7.0, true, valid)
    torch.testing.assert_close(found[valid], true[valid], atol=1e-4, rtol=0)


def test_the_depth_encoder_learns_depth_and_its_decoder_is_dropped(tmp_path):
    scenes = tmp_path / "scenes"
    write_list(scenes, 4)
    config = replace(tiny_depth(), model=micro_model(), batch_size=4)
    changes = [f"task.folder={scenes}", f"task.held_out={scenes}", "steps=300", "log_every=300"]
    config = with_changes(config, [*changes, "optimiser.warmup_steps=5", "validate_every=300"])
    assert train(config, tmp_path / "run", ALONE, console=Console(quiet=True)) == 0
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["depth_error_held_out"] < 0.6  # 1 is as good as each picture's mean
    model, _ = load_weights(tmp_path / "run/final")
    start = build(config.model, seed=config.seed)
    assert torch.equal(model.siglip.patch.weight, start.siglip.patch.weight)
    assert not torch.equal(model.depth.patch.weight, start.depth.patch.weight)


# Recipes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", command.recipes())
def test_every_recipe_is_whole_and_sorts_every_parameter(name):
    config = command.recipe(name)
    assert config.name == name and config.about and config.machine
    parts = parts_of(config.task.empty_model(config), config.trained)
    assert any(part.trained for part in parts)


def test_the_recipes_of_the_paper_train_what_it_says():
    align, whole = vlm_align(), vlm_3d()
    assert (align.steps, whole.steps, align.batch_size, whole.batch_size) == (2000, 10000, 512, 512)
    assert (align.task.coordinate_weight, whole.task.coordinate_weight) == (1.0, 2.0)
    assert all(whole.trained.values())
    parts = parts_of(align.task.empty_model(align), align.trained)
    learn = {part.name: part.count for part in parts if part.trained}
    assert learn == {"fusion": 10_752_000, "tokens.coordinates": 1024 * 2048}


def test_train_lists_its_recipes_and_shows_a_dry_run(capsys):
    assert command.main(["--list"]) == 0
    assert "vlm_3d" in capsys.readouterr().out
    assert command.main(["--recipe", "tiny_vlm_align", "--dry-run"]) == 0  # without its data
    shown = capsys.readouterr()
    assert "peak_learning_rate: 0.002" in shown.out and "frozen" in shown.out
    assert "8 x H200" in shown.out and "GFLOP a sample of the longest kind" in shown.out
    recipe = tiny_depth()
    flops, activations = sample_cost(
        recipe, recipe.task.empty_model(recipe), partial(recipe.task.longest_loss, recipe)
    )
    assert flops > 0 and activations > 0


# Bad input --------------------------------------------------------------------------------------


def test_data_that_does_not_fit_is_refused_in_a_sentence(pictures, tmp_path):
    def refused(config, words):
        with pytest.raises(TrainingError, match=words):
            config.task.make(config, CPU).build_model()

    config = recipe(pictures)
    refused(replace(config, task=replace(config.task, folders={"world": ""})), "folders.world=FOLD")
    refused(recipe(pictures, "task.mixture=moon"), "there is no mixture 'moon'")
    refused(recipe(tmp_path), "bins.json cannot be read")
    refused(replace(config, model=tiny_vlm_3d().model), "64 bins do not fit the model's 256")
    two = replace(config.model, cameras=(*config.model.cameras, CameraConfig("wrist", 56, 56)))
    refused(replace(config, model=two), "stage 1 trains a model with one camera")
    refused(recipe(pictures, f"start={tmp_path}"), str(tmp_path))


def test_weights_of_another_model_are_refused_by_the_part_that_differs(learnt):
    records, run = learnt
    config = recipe(records, f"start={run / 'final'}")
    config.task.make(config, CPU).build_model()
    other = replace(config.model, siglip=replace(config.model.siglip, layers=2))
    config = replace(config, model=other)
    with pytest.raises(TrainingError, match="has another siglip than the recipe's model"):
        config.task.make(config, CPU).build_model()


def test_a_picture_that_is_damaged_since_it_was_annotated_is_named(tmp_path):
    records = with_bins(tmp_path, [shelf(0)])
    (path,) = (tmp_path / "images").rglob("*.jpg")
    path.write_bytes(b"no picture")
    config = recipe(records)
    with pytest.raises(TrainingError, match=f"{path.name}.*annotate its folder again"):
        config.task.make(config, CPU).source(0, 1)[0]


def test_depth_that_is_gone_or_absent_is_named(tmp_path):
    write_list(tmp_path, 1)
    config = with_changes(replace(tiny_depth(), model=micro_model()), [f"task.folder={tmp_path}"])
    batches = config.task.make(config, CPU).source(0, 1)
    cv2.imwrite(str(tmp_path / "depth/000.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(TrainingError, match=r"000\.png is no depth map"):
        batches[0]
    cv2.imwrite(str(tmp_path / "depth/000.png"), np.ones((4, 4), np.uint16))
    with pytest.raises(TrainingError, match=r"000\.png is 4x4 and its picture \d+x\d+"):
        batches[0]
    (tmp_path / "items.jsonl").write_text('{"id": "a", "image": "000.png"}\n')
    with pytest.raises(TrainingError, match="none of its 1 pictures has depth"):
        config.task.make(config, CPU)
    (tmp_path / "items.jsonl").unlink()
    with pytest.raises(TrainingError, match=r"items\.jsonl cannot be read.*set task.folder="):
        config.task.make(config, CPU)
    write_list(tmp_path / "again", 1)
    changes = [f"task.folder={tmp_path / 'again'}", f"task.held_out={tmp_path}"]
    config = with_changes(config, changes)
    with pytest.raises(TrainingError, match=r"set task.held_out=FOLDER"):
        config.task.make(config, CPU)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("run.json", b"\xff", "run.json is damaged"),
        ("bins.json", b"{}", "bins.json holds no bins"),
        ("annotations-00000-of-00002.jsonl", b"{", "00000-of-00002.jsonl, line 1 is no annotation"),
        ("annotations-00000-of-00002.jsonl", b"", "has 0 records of 1 pictures: it was emptied"),
        ("annotations-00000-of-00002.jsonl", None, "1 of 2 shards are not finished"),
    ],
)
def test_damaged_records_are_named(tmp_path, name, content, words):
    config = recipe(with_bins(tmp_path, [shelf(0), shelf(1)]))
    path = tmp_path / "records" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(TrainingError, match=words):
        config.task.make(config, CPU).source(0, 1)[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe", "items.jsonl is damaged"),
        (b"{", "items.jsonl: no item"),
        (b"", "none of its 0 pictures has depth"),
        (None, "items.jsonl cannot be read"),
    ],
)
def test_a_damaged_list_of_depth_maps_is_named(tmp_path, content, words):
    if content is not None:
        (tmp_path / "items.jsonl").write_bytes(content)
    config = with_changes(replace(tiny_depth(), model=micro_model()), [f"task.folder={tmp_path}"])
    with pytest.raises(TrainingError, match=words):
        config.task.make(config, CPU)
