"""Stage 2 through the training loop: its draws, what it learns, what it leaves and refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from store_fixture import made_store

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import Pose
from spear_policy.inference.engine import Observation
from spear_policy.inference.spear_engine import SpearEngine, load
from spear_policy.model.checkpoint import save_weights
from spear_policy.model.config import (
    CameraConfig,
    DepthEncoderConfig,
    ExpertConfig,
    LanguageConfig,
    SiglipConfig,
    VocabularyConfig,
)
from spear_policy.model.spear import build
from spear_policy.model.tokenizer import train_tokenizer
from spear_policy.shared.config import ConfigError
from spear_training.data.oxe.table import load_table
from spear_training.data.stats import main as spear_stats
from spear_training.evaluation import command as evaluate
from spear_training.evaluation.open_loop import BASELINES, ChunkErrors, Chunks
from spear_training.recipes.stage2 import (
    ABLATIONS,
    vla_ablation,
    vla_bridge,
    vla_droid,
    vla_pretrain,
)
from spear_training.recipes.tiny import tiny_spear, tiny_vla
from spear_training.train import command
from spear_training.train.config import TrainingError, with_changes
from spear_training.train.distributed import Processes
from spear_training.train.lora import merge_adapters
from spear_training.train.optimiser import parts_of
from spear_training.train.train import train

CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU)
STEADY = ["task.augmentation=null"]


def micro_spear():
    """A model that learns a straight motion in seconds."""
    return replace(
        tiny_spear(),
        name="micro_spear",
        cameras=(CameraConfig("external", 56, 42), CameraConfig("wrist", 28, 28)),
        siglip=SiglipConfig(width=32, layers=1, heads=2, mlp_width=64, position_grid=4),
        depth=DepthEncoderConfig(
            width=32, layers=2, heads=2, mlp_width=64, output_layers=(1,), position_grid=4
        ),
        language=LanguageConfig(width=48, layers=2, mlp_width=96, heads=2, head_dim=24),
        vocabulary=VocabularyConfig(size=512, loc_begin=448, loc_tokens=64, coordinate_tokens=64),
        expert=ExpertConfig(width=32, mlp_width=64),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with two stores, the mixture of both and its statistics."""
    root = tmp_path_factory.mktemp("demonstrations")
    made_store(root, name="whole", episodes=3)
    made_store(root, name="blind", episodes=2, wrist=False)
    parts = [{"store": "whole", "weight": 3}, {"store": "blind", "weight": 1}]
    (root / "mixture.yaml").write_text(yaml.safe_dump({"parts": parts}))
    (root / "held.yaml").write_text(yaml.safe_dump({"parts": parts[:1]}))
    assert spear_stats(["--mixture", str(root / "mixture.yaml"), "--out", str(root)]) in (0, 1)
    return root


def recipe(data, *changes, **parts):
    """A small training on these demonstrations."""
    config = replace(tiny_vla(), model=micro_spear(), batch_size=8, **parts)
    given = [f"task.mixture={data / 'mixture.yaml'}", f"task.statistics={data / 'statistics.json'}"]
    return with_changes(config, [*given, "optimiser.warmup_steps=5", *changes])


def made(config, rank=0, ranks=1, step=0):
    """(task, micro-batches of a step) of one process."""
    task = config.task.make(config, CPU)
    batch = task.source(rank, ranks)[step]
    return task, task.split(batch, config.micro_batches)


# Draws and losses --------------------------------------------------------------------------------


def test_noise_and_times_depend_on_seed_and_step_alone_and_processes_share_them(data):
    config = recipe(data)
    _, (first,) = made(config)
    _, (again,) = made(config)
    assert torch.equal(first.sample.noise, again.sample.noise)
    assert torch.equal(first.sample.tau, again.sample.tau)
    _, (later,) = made(config, step=1)
    assert not torch.equal(first.sample.tau, later.sample.tau)
    halves = [made(config, rank, 2)[1][0] for rank in range(2)]
    draws = config.task.draws
    for name in ("tau", "delta", "noise", "noisy", "targets"):
        whole = getattr(first.sample, name).unflatten(0, (draws, 8))
        parts = [getattr(half.sample, name).unflatten(0, (draws, 4)) for half in halves]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, msg=name)
    assert halves[0].names + halves[1].names == first.names
    other = made(replace(config, seed=1))[1][0]
    assert not torch.equal(first.sample.tau, other.sample.tau)


def test_draws_of_a_sample_differ_and_share_one_reading_of_its_pictures(data, monkeypatch):
    config = recipe(data, "task.draws=3")
    task, (part,) = made(config)
    assert part.sample.tau.shape == (24,) and part.inputs.state.shape == (8, 8)
    assert len(set(part.sample.tau.tolist())) == 24
    targets = part.sample.targets.unflatten(0, (3, 8))
    assert torch.equal(targets[0], targets[2])
    model, read = build(config.model), []
    tokens = model.image_tokens
    monkeypatch.setattr(model, "image_tokens", lambda images, *a: read.append(1) or tokens(images))
    loss, values = task.loss(model, part, 8.0)
    assert len(read) == 1 and torch.isfinite(loss)
    assert {"loss/whole", "loss/blind", "rotation_identity_deg"} <= set(values)
    by_dataset = sum(float(values[f"loss/{name}"][0]) for name in ("whole", "blind")) / 8
    assert by_dataset == pytest.approx(loss.item(), rel=1e-4)


def test_micro_batches_have_the_loss_of_the_batch(data):
    config = recipe(data)
    task, (whole,) = made(config)
    _, parts = made(replace(config, micro_batches=4))
    model = build(config.model)
    loss = task.loss(model, whole, task.denominator(whole))[0]
    count = sum(map(task.denominator, parts))
    summed = sum(task.loss(model, part, count)[0].item() for part in parts)
    assert count == 8 and summed == pytest.approx(loss.item(), rel=1e-4)
    names = tuple(name for part in parts for name in part.names)
    assert names == whole.names and all(" frame " in name for name in names)


# Open loop ---------------------------------------------------------------------------------------


def test_what_was_recorded_has_no_error_and_errors_are_millimetres_and_degrees():
    turned = quat.from_rotation_vector(np.array([0, 0, np.deg2rad(10.0)]))
    true = Chunks(np.zeros((4, 5, 3)), np.tile(quat.IDENTITY_XYZW, (4, 5, 1)), np.ones((4, 5)))
    none = ChunkErrors.between(true, true)
    assert not none.translation_mm.any() and not none.rotation_deg.any()
    assert np.isnan(none.gripper_f1)  # nothing closes
    off = Chunks(true.translations_m + [0.003, 0, 0.004], np.tile(turned, (4, 5, 1)), true.grippers)
    found = ChunkErrors.between(off, true)
    assert found.translation_mm == pytest.approx(5.0 * np.ones((4, 5)))
    assert found.rotation_deg == pytest.approx(10.0 * np.ones((4, 5)))
    closing = replace(true, grippers=np.tile([1, 1, 0, 0, 0], (4, 1)))
    late = replace(true, grippers=np.tile([1, 1, 1, 0, 0], (4, 1)))
    assert ChunkErrors.between(late, closing).gripper_f1 == pytest.approx(0.8)


def test_baselines_and_probes_are_measured_beside_the_model(data):
    config = recipe(data, f"task.held_out={data / 'held.yaml'}", "task.held_out_samples=20")
    task = config.task.make(config, CPU)
    model = build(config.model)
    held_out = task._held_out
    found = held_out.errors(model, probes=True)
    assert set(found.others) == {*BASELINES, "no_sentence", "no_external", "no_wrist", "no_state"}
    recorded = found.recorded
    lengths = 1e3 * np.linalg.norm(recorded.translations_m, axis=-1)
    assert found.others["hold_still"].translation_mm == pytest.approx(lengths)
    # The motion is the same all the time: the last one once more is right, but for the first
    # frame of an episode, for the 5 mm by which commands lead, and where an episode ends.
    middle = np.abs(recorded.translations_m[:, 4, 0] - 0.105) < 1e-6
    assert middle.sum() > 5
    repeated = found.others["repeat_last"].translation_mm[middle]
    assert np.median(repeated) == pytest.approx(5.0, abs=1)
    numbers = found.numbers()
    assert numbers["hold_still/translation_mm"] == pytest.approx(lengths.mean())
    last_step = found.model.translation_mm[:, 4]
    assert numbers["step_5/translation_mm"] == pytest.approx(last_step.mean())
    again = held_out.errors(model)
    assert again.model.translation_mm == pytest.approx(found.model.translation_mm)


# Learning, and what is left ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnt(data, tmp_path_factory):
    """The run's folder of a model that has learnt a straight motion."""
    folder = tmp_path_factory.mktemp("learnt")
    changes = [*STEADY, "steps=150", "optimiser.peak_learning_rate=3e-3", "validate_every=150"]
    changes += [f"task.held_out={data / 'held.yaml'}", "task.held_out_samples=24", "log_every=50"]
    config = replace(recipe(data, *changes), name="straight")
    assert train(config, folder / "run", ALONE, console=Console(quiet=True)) == 0
    return folder / "run"


def test_a_straight_motion_is_learnt(learnt):
    lines = [json.loads(line) for line in (learnt / "metrics.jsonl").read_text().splitlines()]
    last, logged = lines[-1], lines[-2]
    assert last["translation_share_of_hold_still"] < 0.3
    assert last["translation_mm"] < last["mean_action/translation_mm"]
    assert 0 < logged["rotation_error_deg"] and "speed_ratio/0-0.2" in logged
    assert {"loss/whole", "loss/blind"} <= set(logged)


def test_the_exported_checkpoint_runs_in_the_engine_and_says_what_made_it(learnt, data):
    policy = load(learnt / "final")
    card, record = policy.card, json.loads((learnt / "final/training.json").read_text())
    assert (card.recipe, card.checkpoint_id) == ("straight", "straight-150")
    assert card.datasets == ("whole", "blind") and card.dt_s == 0.2
    assert record["statistics"]["pooled"] == card.statistics_hash
    stored = json.loads((data / "statistics.json").read_text())["pooled"]["hash"]
    assert card.statistics_hash == stored
    assert {part["name"]: part["moments"] for part in record["data"]} == {"whole": 63, "blind": 41}
    assert record["step"] == 150 and record["config"]["task"]["kind"] == "vla"
    engine = SpearEngine.from_folder(str(learnt / "final"), "franka", device="cpu")
    engine.warm_up()
    engine.reset("do task 0")
    pose = Pose(np.array([0.35, 0.0, 0.19]), quat.IDENTITY_XYZW)
    images = {
        "external": np.full((210, 280, 3), 30, np.uint8),
        "wrist": np.full((112, 112, 3), 220, np.uint8),
    }
    chunk = engine.infer(Observation(1.0, pose, pose, 1.0, "do task 0", images))
    # 1 cm along x in a tenth of a second, with commands 5 mm ahead.
    wanted = np.outer(np.arange(1, 6), [0.02, 0.008, -0.006])
    assert np.linalg.norm(chunk.translations_m - wanted, axis=1).mean() < 0.03
    assert np.rad2deg(quat.angle(chunk.rotations_xyzw)).max() < 20


def test_a_checkpoint_is_evaluated_on_a_page_with_the_numbers_beside_it(
    learnt, data, tmp_path, capsys
):
    page = tmp_path / "pages/open_loop.html"
    words = ["open_loop", "--checkpoint", str(learnt / "final"), "--out", str(page)]
    words += ["--mixture", str(data / "mixture.yaml"), "--samples", "24"]
    assert evaluate.main([*words, "--metrics", str(learnt / "metrics.jsonl")]) == 0
    text = page.read_text()
    for part in (
        "without the wrist camera",
        "last motion once more",
        "By dataset",
        "no difference",
    ):
        assert part in text
    numbers = json.loads(page.with_suffix(".json").read_text())
    assert numbers["translation_share_of_hold_still"] < 0.3
    assert {"whole/translation_mm", "no_state/rotation_deg"} <= set(numbers)
    capsys.readouterr()
    assert evaluate.main([*words, "--statistics", "/nowhere.json"]) == 2
    assert "/nowhere.json: cannot be read" in capsys.readouterr().err
    (tmp_path / "card.json").write_text("{}")
    assert evaluate.main([*words, "--checkpoint", str(tmp_path)]) == 2
    assert "card" in capsys.readouterr().err


def test_corrections_of_the_language_model_learn_in_its_place_and_are_merged(
    learnt, data, tmp_path
):
    changes = [*STEADY, "steps=6", "optimiser.peak_learning_rate=1e-2", "task.lora_rank=4"]
    config = recipe(data, *changes, start=str(learnt / "final"), ema_decay=None)
    config = replace(config, trained={**config.trained, "siglip": 0.0, "tokens.words": 0.0})
    adapted = config.task.make(config, CPU).build_model()
    learn = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert {"language.layers.1.qkv.adapter_in", "expert.action_out.weight"} <= learn
    assert not learn & {f"language.layers.0.{part}.weight" for part in ("qkv", "out", "down")}
    assert train(config, tmp_path / "run", ALONE, console=Console(quiet=True)) == 0
    before, after = load(learnt / "final").model, load(tmp_path / "run/final").model
    assert set(after.state_dict()) == set(before.state_dict())
    for layer in (0, 1):  # of the last one, actions see keys and values only
        qkv = [model.language.layers[layer].qkv.weight for model in (before, after)]
        assert not torch.equal(*qkv)
    assert torch.equal(before.siglip.patch.weight, after.siglip.patch.weight)
    _, (part,) = made(config)
    with torch.no_grad():
        for layer in adapted.modules():
            if hasattr(layer, "adapter_out"):
                layer.adapter_out.normal_(std=0.1)
        sample = part.sample
        found = adapted(part.inputs, sample.noisy, sample.tau)
        merge_adapters(adapted)
        torch.testing.assert_close(adapted(part.inputs, sample.noisy, sample.tau), found)


def test_training_goes_on_from_stage_1_or_from_a_checkpoint(learnt, data, tmp_path):
    config = recipe(data)
    stage1 = build(replace(config.model, cameras=config.model.cameras[:1], expert=None), seed=7)
    save_weights(tmp_path / "vlm", stage1, train_tokenizer(config.model.vocabulary))
    (tmp_path / "vlm/training.json").write_text("{}")
    begun = replace(config, start=str(tmp_path / "vlm"))
    model = begun.task.make(begun, CPU).build_model()
    assert torch.equal(model.siglip.patch.weight, stage1.siglip.patch.weight)
    fresh = build(config.model, seed=config.seed)
    assert torch.equal(model.expert.action_out.weight, fresh.expert.action_out.weight)
    further = replace(config, start=str(learnt / "final"))
    model, there = further.task.make(further, CPU).build_model(), load(learnt / "final").model
    assert torch.equal(model.expert.action_out.weight, there.expert.action_out.weight)


# Bad input ---------------------------------------------------------------------------------------


def test_a_start_of_another_kind_or_model_is_refused(learnt, data, tmp_path):
    save_weights(tmp_path / "bare", build(micro_spear()), train_tokenizer(micro_spear().vocabulary))
    wider = replace(micro_spear(), expert=ExpertConfig(width=64, mlp_width=64))
    for config, words in (
        (recipe(data, start=str(tmp_path / "bare")), "neither a checkpoint nor a folder of stage"),
        (
            replace(recipe(data), start=str(learnt / "final"), model=wider),
            "has another expert than the recipe's model",
        ),
    ):
        with pytest.raises(TrainingError, match=words):
            config.task.make(config, CPU).build_model()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["task.mixture=''"], "no demonstrations: give --set task.mixture"),
        (["task.mixture=/nowhere.yaml"], "/nowhere.yaml: cannot be read"),
        (["task.only=third"], "the mixture has no 'third'"),
        (["task.statistics=''"], "no statistics: run `spear_stats"),
        (["task.statistics=/nowhere.json"], "/nowhere.json: cannot be read"),
    ],
)
def test_missing_data_is_said_in_a_sentence(data, changes, words):
    config = recipe(data, *changes)
    with pytest.raises(TrainingError, match=words):
        config.task.make(config, CPU)


def test_data_that_does_not_belong_together_is_refused(data, tmp_path):
    values = json.loads((data / "statistics.json").read_text())
    del values["data_sets"]["blind"]
    (tmp_path / "statistics.json").write_text(json.dumps(values))
    config = recipe(data, f"task.statistics={tmp_path / 'statistics.json'}")
    with pytest.raises(TrainingError, match="no statistics of blind: run spear_stats"):
        config.task.make(config, CPU)
    parts = [{"store": str(data / "whole"), "name": "other", "weight": 1}]
    (tmp_path / "held.yaml").write_text(yaml.safe_dump({"parts": parts}))
    config = recipe(data, f"task.held_out={tmp_path / 'held.yaml'}")
    with pytest.raises(TrainingError, match="has other, which is not trained on"):
        config.task.make(config, CPU)
    config = recipe(data)
    config = replace(config, task=replace(config.task, robots={"third": "franka"}))
    with pytest.raises(TrainingError, match="robots has 'third', which is not in the mixture"):
        config.task.make(config, CPU)
    with pytest.raises(ConfigError, match="robots names 'ur5'"):
        recipe(data, "task.robots.whole=ur5")
    assert recipe(data, *STEADY).task.augmentation is None
    with pytest.raises(ConfigError, match="task.augmentation names a group: add one of crop"):
        recipe(data, "task.augmentation=0")
    with pytest.raises(ConfigError, match="optimiser"):
        recipe(data, "optimiser=null")
    assert recipe(data, "task.robots.whole=franka").task.robots == {"whole": "franka"}
    headless = replace(recipe(data), model=replace(micro_spear(), expert=None))
    with pytest.raises(TrainingError, match="no action expert"):
        headless.task.make(headless, CPU)


# Recipes -----------------------------------------------------------------------------------------


def test_the_recipes_of_the_paper_train_what_it_says():
    pretrain, bridge = vla_pretrain(), vla_bridge()
    assert (pretrain.steps, pretrain.batch_size, pretrain.task.mixture) == (300_000, 2048, "oxe")
    assert (bridge.steps, bridge.task.only, bridge.task.robots) == (
        50_000,
        "bridge",
        {"bridge": "widowx"},
    )
    rows = load_table()
    for config in (pretrain, bridge, vla_droid()):
        assert set(config.task.robots) <= set(rows)
    parts = parts_of(pretrain.task.empty_model(pretrain), pretrain.trained)
    assert {part.name for part in parts if not part.trained} == {"depth", "tokens.coordinates"}


def test_each_variant_of_stage_2_changes_one_thing():
    base = vla_ablation()
    for make in ABLATIONS:
        variant = make()
        same = replace(variant, name=base.name, about=base.about)
        changed = [name for name in vars(base) if getattr(base, name) != getattr(same, name)]
        assert changed in (["model"], ["trained"], ["model", "trained"]), make.__name__
        assert command.recipe(make.__name__).name == variant.name
