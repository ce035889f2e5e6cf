"""Engine `spear`: from an observation in the robot's terms to a chunk in the robot's terms."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import Pose
from spear_policy.inference.engine import Observation
from spear_policy.inference.image_geometry import fit
from spear_policy.inference.make_checkpoint import GUESSED_STATISTICS, untrained_policy
from spear_policy.inference.spear_engine import SpearEngine, load, save
from spear_policy.inference.statistics import denormalise, encode_state, statistics_hash
from spear_policy.model.config import preset
from spear_policy.model.prompts import prompt_ids
from spear_policy.model.sampling import Sampler
from spear_policy.model.spear import ModelInputs

DOWN_XYZW = np.array([1.0, 0.0, 0.0, 0.0])
TASK = "put the red cube on the plate"


@pytest.fixture(scope="module")
def policy():
    return untrained_policy(preset("tiny"), seed=4)


def seen(seed=0, **changes):
    """An observation with pictures of a real camera's size."""
    rng = np.random.default_rng(seed)
    images = {
        "external": rng.integers(0, 256, (480, 640, 3), dtype=np.uint8),
        "wrist": rng.integers(0, 256, (240, 320, 3), dtype=np.uint8),
    }
    measured = Pose(np.array([0.5, 0.1, 0.3]), quat.multiply(DOWN_XYZW, [0, 0, 0.1, 0.995]))
    measured = Pose(measured.position_m, quat.unit(measured.orientation_xyzw, 1e-2))
    commanded = Pose(np.array([0.51, 0.1, 0.3]), measured.orientation_xyzw)
    values = {
        "stamp_s": 12.5,
        "measured": measured,
        "commanded": commanded,
        "gripper_opening": 0.75,
        "instruction": TASK,
        "images": images,
    }
    return Observation(**values | changes)


def ready(policy, robot="franka", **options):
    engine = SpearEngine(policy, robot, **options)
    engine.reset(TASK)
    return engine


def test_a_chunk_is_the_models_answer_in_metres_and_in_the_end_effectors_axes(policy):
    """The whole way once more with the parts one by one."""
    engine, observation = ready(policy, seed=7), seen()
    chunk = engine.infer(observation)
    config, card = policy.model.config, policy.card
    images = tuple(
        torch.from_numpy(fit(observation.images[c.name], c.width, c.height)).permute(2, 0, 1)[None]
        for c in config.cameras
    )
    ids = prompt_ids(TASK, policy.tokenizer, config.vocabulary, config.max_text_tokens)
    state = encode_state(observation.measured, 0.75, card.statistics, DOWN_XYZW)
    inputs = ModelInputs(images, torch.tensor([ids]), state=torch.from_numpy(state)[None])
    inputs.check_values(config)
    sampler = Sampler(policy.model)
    x, q_wxyz, gripper = sampler.flow.decode(
        sampler(inputs, generator=torch.Generator().manual_seed(7))[0]
    )
    metres = denormalise(x.numpy(), GUESSED_STATISTICS.translation, "quantile")
    np.testing.assert_allclose(chunk.translations_m, metres, atol=1e-6)
    np.testing.assert_allclose(quat.wxyz_from_xyzw(chunk.rotations_xyzw), q_wxyz, atol=1e-5)
    np.testing.assert_array_equal(chunk.gripper_openings, gripper[:, 0].numpy() > 0)
    assert (chunk.stamp_s, chunk.dt_s, len(chunk.translations_m)) == (12.5, 0.2, 5)
    np.testing.assert_allclose(chunk.anchor[:3], observation.measured.position_m)
    assert not chunk.final


def test_a_checkpoint_anchored_at_the_commanded_pose_reads_and_starts_from_it(policy):
    card = replace(policy.card, anchor="commanded")
    commanded = ready(replace(policy, card=card)).infer(seen())
    np.testing.assert_allclose(commanded.anchor[:3], [0.51, 0.1, 0.3])
    both = seen(commanded=seen().measured)
    measured = ready(policy).infer(both)
    assert np.abs(commanded.translations_m - measured.translations_m).max() > 1e-6


def test_a_base_frame_model_is_turned_into_the_end_effectors_axes(policy):
    config = replace(
        policy.model.config, flow=replace(policy.model.config.flow, rotation_frame="base")
    )
    policy.model.config, before = config, policy.model.config
    try:
        base = ready(policy).infer(seen())
    finally:
        policy.model.config = before
    ours = ready(policy).infer(seen())
    anchor = seen().measured.orientation_xyzw
    turned = quat.multiply(quat.multiply(anchor, base.rotations_xyzw), quat.inverse(anchor))
    np.testing.assert_allclose(quat.half_space(turned), ours.rotations_xyzw, atol=1e-6)


def test_a_seed_repeats_a_trial_and_a_new_instruction_starts_it_anew(policy):
    engine = ready(policy, seed=1)
    first, second = engine.infer(seen()), engine.infer(seen())
    assert np.abs(first.translations_m - second.translations_m).max() > 1e-6  # noise goes on
    engine.reset(TASK)
    np.testing.assert_array_equal(engine.infer(seen()).translations_m, first.translations_m)
    other = ready(policy, seed=2).infer(seen())
    assert np.abs(other.translations_m - first.translations_m).max() > 1e-6


def test_the_card_tells_the_graph_what_the_checkpoint_needs(policy):
    card = SpearEngine(policy, "franka").card
    assert [camera.name for camera in card.cameras] == ["external", "wrist"]
    assert (card.engine, card.checkpoint_id, card.dt_s) == ("spear", "tiny-untrained-4", 0.2)
    assert card.statistics_hash == policy.card.statistics_hash != ""
    absent = SpearEngine(policy, "franka", absent=("wrist",)).card
    assert [camera.name for camera in absent.cameras] == ["external"]


def test_a_robot_without_a_wrist_camera_gets_chunks(policy):
    engine = ready(policy, absent=("wrist",))
    images = {"external": seen().images["external"]}
    chunk = engine.infer(seen(images=images))
    black = seen(images=images | {"wrist": np.zeros((56, 56, 3), np.uint8)})
    np.testing.assert_allclose(
        chunk.translations_m, ready(policy).infer(black).translations_m, atol=1e-6
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": {}}, "there is no external image: this checkpoint needs that camera"),
        (
            {"images": seen().images | {"wrist": np.zeros((9, 9), np.uint8)}},
            "the wrist camera: .*9",
        ),
        ({"images": seen().images | {"wrist": np.full((9, 9, 3), np.nan)}}, "uint8"),
        ({"gripper_opening": np.nan}, "the gripper opening is nan"),
    ],
)
def test_an_observation_that_lacks_something_is_named(policy, changes, words):
    with pytest.raises(ValueError, match=words):
        ready(policy).infer(seen(**changes))


def test_an_answer_that_is_not_finite_never_becomes_a_chunk():
    broken = untrained_policy(preset("tiny"))
    with torch.no_grad():
        broken.model.expert.action_out.bias[2] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        ready(broken).infer(seen())


def test_an_empty_instruction_is_refused_and_a_long_one_cut_with_a_warning(policy, caplog):
    engine = SpearEngine(policy, "franka")
    with pytest.raises(ValueError, match="no instruction yet"):
        engine.infer(seen())
    with pytest.raises(ValueError, match="empty"):
        engine.reset("   ")
    engine.reset("put it there and " * 600)  # 10,000 characters
    assert "is cut to 48" in caplog.text
    assert len(engine.infer(seen()).translations_m) == 5


def test_values_outside_the_training_range_and_near_the_seam_are_reported(policy):
    engine = ready(policy)
    engine.infer(seen())
    assert not any(engine.figures().values())
    away = Pose(np.array([0.5, 2.0, 0.3]), np.array([0.0, 0.05, 0.0, 0.99875]))
    for _ in range(20):
        engine.infer(seen(measured=away))
    notes = engine.figures()
    assert "position y: 95 % of the last 21 values outside" in notes["outside_training_range"]
    assert notes["orientation"]


def test_an_axis_along_which_nothing_moved_in_training_is_named_at_load(policy, caplog):
    position = replace(GUESSED_STATISTICS.position, high=(0.8, 0.4, 5e-4))
    narrow = replace(GUESSED_STATISTICS, position=position)
    card = replace(policy.card, statistics=narrow, statistics_hash=statistics_hash(narrow))
    SpearEngine(replace(policy, card=card), "franka")
    assert "tiny-untrained-4: statistics.position: along z" in caplog.text


def test_an_unknown_robot_is_answered_with_the_known_ones(policy):
    with pytest.raises(ValueError, match="no robot 'panda', only franka, widowx"):
        SpearEngine(policy, "panda")


def test_a_policy_survives_its_folder(policy, tmp_path):
    card = save(tmp_path / "tiny", policy)
    loaded = load(tmp_path / "tiny")
    assert loaded.card == card and len(card.file_hashes) == 3
    ours, theirs = (ready(each).infer(seen()) for each in (policy, loaded))
    np.testing.assert_array_equal(ours.translations_m, theirs.translations_m)
    np.testing.assert_array_equal(ours.rotations_xyzw, theirs.rotations_xyzw)


def test_whoever_may_read_the_card_may_read_the_weights(policy, tmp_path):
    save(tmp_path / "tiny", policy)
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "tiny").iterdir()}
    assert len(modes) == 4 and len(set(modes.values())) == 1, modes


def test_a_folder_whose_parts_do_not_belong_together_is_refused(policy, tmp_path):
    save(tmp_path / "a", policy)
    save(tmp_path / "b", untrained_policy(preset("tiny"), seed=9))
    (tmp_path / "a" / "card.json").write_bytes((tmp_path / "b" / "card.json").read_bytes())
    with pytest.raises(ValueError, match="as its card says"):
        load(tmp_path / "a")
    with pytest.raises(ValueError, match="card.json"):
        load(tmp_path)
