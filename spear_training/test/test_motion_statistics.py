"""Statistics of a mixture: what normalises it, and what is odd about its parts."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spear_policy.geometry.tracking import TimedPoses
from spear_policy.inference.statistics import normalise
from spear_training.data.statistics.motion import MotionStatistics, oddities
from spear_training.data.statistics.normalisation import ConstBounds, normalisation
from spear_training.data.targets import chunk_targets


def motion(seed, scale_m=0.02, length=60, rate_hz=10.0, turn_rad=0.02, offset_m=0.4):
    """Return a wandering end effector."""
    rng = np.random.default_rng(seed)
    positions = offset_m + np.cumsum(rng.normal(0, scale_m, (length, 3)), axis=0)
    angles = np.cumsum(rng.normal(0, turn_rad, length))
    zero = np.zeros(length)
    turns = np.column_stack([zero, zero, np.sin(angles / 2), np.cos(angles / 2)])
    return TimedPoses(np.arange(length) / rate_hz, np.hstack([positions, turns]))


def gathered(seeds, **options):
    """Return the statistics of some episodes that open and close the gripper."""
    found = MotionStatistics()
    for seed in seeds:
        poses = motion(seed, **options)
        grip = (np.arange(len(poses)) // 20 % 2 == 0).astype(float)
        found.add(f"episode {seed}", poses, poses, grip)
    return found


def test_counts_are_those_of_the_targets():
    poses = motion(0)
    grip = np.repeat([1.0, 0.0, 1.0], 20)
    found = MotionStatistics()
    found.add("one", poses, poses, grip)
    targets = chunk_targets(poses, poses, grip, poses.stamps_s)
    assert (found.episodes, found.moments, found.gripper_changes) == (1, 60, 2)
    assert found.open_share == pytest.approx(targets.grippers.mean())
    assert found.held_steps == (~targets.recorded).sum() == 2 + 4 + 6 + 8 + 10
    for axis in range(3):
        values = targets.translations_m[..., axis]
        assert found.translation[axis].mean == pytest.approx(values.mean(), abs=1e-6)
        assert found.translation[axis].quantile(0.99) == pytest.approx(
            np.quantile(values, 0.99, method="inverted_cdf"), rel=2e-3
        )


def test_moments_at_which_nothing_moves_are_idle():
    poses = motion(1, scale_m=0.0, turn_rad=0.0)
    found = MotionStatistics()
    found.add("still", poses, poses, np.ones(60))
    assert found.idle_moments == 58  # the last two have no step left
    found = MotionStatistics()
    found.add("grips", poses, poses, np.repeat([1.0, 0.0], 30))
    assert found.idle_moments == 48  # the gripper closes within the chunk of ten of them
    assert gathered([2]).idle_share == 0


def test_parts_merge_to_the_whole_in_any_order():
    whole = gathered(range(6), scale_m=0.5)
    parts = [gathered([seed], scale_m=0.5) for seed in (4, 0, 5, 2, 1, 3)]
    merged = MotionStatistics()
    for part in parts:
        merged.merge(part)
    assert whole.implausible_episodes == 6
    assert json.dumps(merged.to_dict()) == json.dumps(whole.to_dict())
    again = MotionStatistics.from_dict(json.loads(json.dumps(whole.to_dict())))
    assert again.to_dict() == whole.to_dict()
    with pytest.raises(ValueError, match="no statistics"):
        MotionStatistics.from_dict({"translation": []})


def mistaken(mistake):
    """Return the statistics of an episode of 40 frames, written with a user's mistake."""
    steps = np.arange(40)
    poses = np.zeros((40, 7))
    poses[:, :3] = np.outer(steps, [0.01, 0.004, -0.003]) + [0.3, 0.1, 0.2]
    # A hand that points down and turns a little.
    poses[:, 3:] = Rotation.from_euler("xyz", [[3.1, 0.02 * s, 0.01 * s] for s in steps]).as_quat()
    commanded = poses + [0.005, 0, 0, 0, 0, 0, 0]
    commands = (steps < 20).astype(float)
    openings = np.interp(steps, [20, 26], [1.0, 0.3])
    if mistake == "mm":
        commanded[:, :3] *= 1000
    elif mistake == "wxyz":
        poses[:, 3:] = np.roll(poses[:, 3:], 1, axis=1)
    elif mistake == "inverted":
        commands = 1 - commands
    stamps = steps / 10.0
    found = MotionStatistics()
    motion = TimedPoses(stamps, poses), TimedPoses(stamps, commanded)
    found.add("one", *motion, commands, openings=openings)
    return found


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        ("none", None),
        ("mm", "commanded positions are 553 m from the measured ones (median): one of them is in"),
        (
            "wxyz",
            "rad from the measured ones (median): check the order of quaternions",
        ),
        (
            "inverted",
            "the measured gripper moves against its command 1 times of 1: closed and",
        ),
    ],
)
def test_command_and_measurement_are_compared(mistake, text):
    motions = {"lab": mistaken(mistake)}
    pooled = normalisation(motions, {"lab": 1.0}).pooled
    texts = [oddity.text for oddity in oddities(motions, pooled)]
    assert any(text in each for each in texts) if text else not texts, texts


def test_global_quantiles_count_each_dataset_by_its_share():
    small, large = gathered(range(3), scale_m=0.005), gathered(range(40), scale_m=0.05)
    shares = {"small": 0.99, "large": 0.01}
    mostly_small = normalisation({"small": small, "large": large}, shares)
    alone = normalisation({"small": small}, {"small": 1.0})
    assert mostly_small.scheme == "global_quantile"
    assert mostly_small.by_dataset["large"] == mostly_small.pooled
    for axis in range(3):
        assert mostly_small.pooled.translation.high[axis] < 2 * alone.pooled.translation.high[axis]
    even = normalisation({"small": small, "large": large}, {"small": 1, "large": 1})
    assert even.pooled.translation.high[0] > 3 * alone.pooled.translation.high[0]
    assert len(set(even.hashes().values())) == 1
    assert even.hashes() != mostly_small.hashes()


def test_quantiles_bring_98_percent_of_the_values_into_the_unit_range():
    found = normalisation({"one": gathered(range(10))}, {"one": 1.0}).card_statistics()
    values = np.concatenate(
        [
            chunk_targets(m, m, np.ones(len(m)), m.stamps_s).translations_m.reshape(-1, 3)
            for m in map(motion, range(10))
        ]
    )
    scaled = normalise(values, found.translation, found.scheme)
    assert (np.abs(scaled) <= 1).mean(axis=0) == pytest.approx(0.98, abs=0.004)


def test_positions_that_nobody_knows_do_not_count():
    placed, lost = gathered([1, 2]), MotionStatistics()
    poses = motion(3, offset_m=50.0)
    lost.add("lost", poses, poses, np.repeat([1.0, 0.0], 30), state_known=False)
    assert lost.translation[0].count and not lost.position[0].count
    both, shares = {"placed": placed, "lost": lost}, {"placed": 1, "lost": 1}
    found = normalisation(both, shares)
    assert found.pooled.position == normalisation({"placed": placed}, {"placed": 1}).pooled.position
    own = normalisation(both, shares, "dataset_quantile").by_dataset["lost"]
    assert own.position == found.pooled.position
    assert own.translation != found.pooled.translation
    assert not [each for each in oddities(both, found.pooled) if "reach" in each.text]
    with pytest.raises(ValueError, match="no values"):
        normalisation({"lost": lost}, {"lost": 1})


def test_each_scheme_of_table_10():
    motions = {"a": gathered([1, 2]), "b": gathered([3, 4], scale_m=0.08, offset_m=-0.3)}
    shares = {"a": 1.0, "b": 1.0}
    own = normalisation(motions, shares, "dataset_quantile")
    assert own.by_dataset["a"] != own.by_dataset["b"]
    assert own.card_statistics("b") == own.by_dataset["b"]
    with pytest.raises(ValueError, match="one of a, b, not c"):
        own.card_statistics("c")
    const = normalisation(motions, shares, "const", ConstBounds(translation_low_m=(-0.2,) * 3))
    assert const.pooled.translation.low == (-0.2,) * 3
    assert const.pooled.translation.high == (0.1,) * 3
    standard = normalisation(motions, shares, "mean_std").pooled
    assert standard.scheme == "mean_std"
    assert standard.position.mean[0] == pytest.approx(
        (motions["a"].position[0].mean + motions["b"].position[0].mean) / 2
    )


@pytest.mark.parametrize(
    ("motions", "shares", "scheme", "text"),
    [
        ({"a": MotionStatistics()}, {"a": 1}, "global_quantile", "no motion was counted in a"),
        ({}, {}, "global_quantile", "not: none at all"),
        ({"a": gathered([1])}, {"b": 1}, "global_quantile", r"not: \['a', 'b'\]"),
        ({"a": gathered([1])}, {"a": 1}, "best", "'best': it may be one of global_quantile"),
    ],
)
def test_what_cannot_be_worked_out_is_refused(motions, shares, scheme, text):
    with pytest.raises(ValueError, match=text):
        normalisation(motions, shares, scheme)


def gripless(seeds):
    """Return motions in which the gripper stays open."""
    found = MotionStatistics()
    for seed in seeds:
        poses = motion(seed)
        found.add(f"episode {seed}", poses, poses, np.ones(len(poses)))
    return found


@pytest.mark.parametrize(
    ("odd", "text"),
    [
        (lambda: gathered([1], scale_m=20.0), "times the other datasets'"),
        (lambda: gathered([1], scale_m=20.0), "outside the mixture's"),
        (lambda: gathered([1], scale_m=20.0), "more than an arm reaches"),
        (lambda: gathered([1], scale_m=1.0), "move faster than an arm can, e.g. episode 1: "),
        (lambda: gathered([1], turn_rad=1.0), "turn by more than"),
        (lambda: gathered([1], scale_m=1e-5, turn_rad=0), "nothing moves at"),
        (lambda: gripless([1]), "commanded to be open in 100.0 %"),
    ],
)
def test_a_dataset_that_is_not_like_the_others_is_pointed_out(odd, text):
    motions = {f"set {i}": gathered([10 * i, 10 * i + 1]) for i in range(4)}
    pooled = normalisation(motions, dict.fromkeys(motions, 1.0)).pooled
    assert not oddities(motions, pooled)
    found = oddities(motions | {"odd": odd()}, pooled)
    assert {each.dataset for each in found} == {"odd"}
    assert any(text in each.text for each in found), [each.text for each in found]
