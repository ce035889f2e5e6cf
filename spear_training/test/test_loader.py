"""Batches: the right pictures with the right targets, the same for any number of processes."""

import dataclasses
import gc
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from store_fixture import made_store

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.tracking import TimedPoses
from spear_policy.inference.spear_engine import load
from spear_policy.model.config import preset
from spear_policy.model.flow_matching import FlowMatching
from spear_training.data.loader import BatchSource, FrameSampleReader, batches, sample_chances
from spear_training.data.preparation import Augmentation, Preparation, augment
from spear_training.data.reader import DataFileError
from spear_training.data.statistics.motion import MotionStatistics
from spear_training.data.statistics.normalisation import normalisation

NAMES = ("whole", "blind")  # in the mixture; the stores may be called otherwise


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Return two small stores: one with two cameras, one without a wrist and without a place."""
    root = tmp_path_factory.mktemp("stores")
    return [
        made_store(root, name="whole-train"),
        made_store(
            root, name="blind-train", episodes=2, length=7, hz=3.0, wrist=False, state_known=False
        ),
    ]


@pytest.fixture(scope="module")
def readers(stores):
    """Return their moments."""
    return {name: FrameSampleReader(store) for name, store in zip(NAMES, stores, strict=True)}


def source(readers, **options):
    """Return a source of batches of 8."""
    return BatchSource(readers, [3, 1], **({"batch_size": 8, "seed": 4} | options))


def test_a_moment_has_its_own_pictures_pose_and_targets(readers):
    reader = readers["whole"]
    frame = 20 + 5  # episode 1, step 5
    moment = reader[frame]
    assert moment.images["external"].shape == (210, 280, 3)
    assert moment.images["external"].mean() == pytest.approx(3 * 5 + 10, abs=1.5)
    assert moment.images["wrist"].mean() == pytest.approx(255 - 25, abs=1.5)
    assert moment.pose == pytest.approx([0.35, 0.12, 0.185, 0, 0, 0, 1], abs=1e-6)
    # Commands are 5 mm ahead; at 10 frames a second a step of 0.2 s is 2 cm.
    assert moment.translations_m[:, 0] == pytest.approx(0.005 + 0.02 * np.arange(1, 6), abs=1e-6)
    assert moment.grippers.tolist() == [1, 1, 0, 0, 0]  # closes at step 10, 0.5 s later
    assert moment.sentences == ("do task 1", "perform task 1")


def test_moments_do_not_reach_into_the_next_episode(readers):
    last = readers["whole"][19]
    assert last.translations_m[:, 0] == pytest.approx(0.005, abs=1e-6)
    with pytest.raises(IndexError, match="whole-train has no frame 86: 0..85"):
        readers["whole"][86]


def test_a_batch_says_what_is_missing(readers):
    batch = source(readers)[0]
    blind = batch.dataset == 1
    assert blind.sum() == 2 and len(batch) == 8
    assert torch.equal(batch.present["wrist"], ~blind) and batch.present["external"].all()
    assert not batch.images["wrist"][blind].any()
    assert batch.images["wrist"].dtype == torch.uint8
    assert torch.equal(batch.state_known, ~blind)


def equal(first, second):
    """Tell whether two batches are the same to the last bit."""
    for each in dataclasses.fields(first):
        a, b = getattr(first, each.name), getattr(second, each.name)
        if isinstance(a, dict):
            if not all(torch.equal(a[key], b[key]) for key in a):
                return False
        elif not (torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b):
            return False
    return True


def test_two_machines_together_read_the_batch_of_one(readers):
    whole = source(readers)[7]
    parts = [source(readers, rank=rank, ranks=2)[7] for rank in range(2)]
    for name in ("poses", "dataset", "frame", "chances", "translations_m"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(whole, name)), name
    assert parts[0].sentences + parts[1].sentences == whole.sentences


def test_workers_and_a_restart_change_nothing(readers):
    alone = list(batches(source(readers), 0, 6, workers=0))
    helped = list(batches(source(readers), 0, 6, workers=2, prefetch=1))
    resumed = list(batches(source(readers), 4, 6, workers=0))
    assert [batch.step for batch in helped] == list(range(6))
    assert all(map(equal, alone, helped))
    assert all(map(equal, alone[4:], resumed))
    assert not equal(alone[0], alone[1])


class Blocked(torch.utils.data.Dataset):
    """What a worker has blocked, then an error."""

    def __getitem__(self, step):
        if step == 1:
            raise DataFileError("a.bin is damaged")
        return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def test_a_workers_error_is_raised_as_it_is_and_signals_are_left_to_the_parent():
    made = batches(Blocked(), 0, 2, workers=1)
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1} <= set(next(made))
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(DataFileError) as raised:
        next(made)
    assert str(raised.value) == "a.bin is damaged"
    assert "in __getitem__" in raised.value.__notes__[0]  # where it was, for who debugs it


def test_all_sentences_of_an_episode_are_used(readers):
    spoken = {sentence for step in range(20) for sentence in source(readers)[step].sentences}
    assert {"do task 0", "perform task 0", "do task 3", "perform task 3"} <= spoken


def resident_bytes():
    """Return the memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_does_not_grow(readers):
    reading = source(readers)
    for step in range(30):
        reading[step]
    gc.collect()
    before = resident_bytes()
    for step in range(30, 90):
        reading[step]
    gc.collect()
    assert resident_bytes() - before < 8e6  # one picture a sample would be 100 MB


@pytest.fixture(scope="module")
def prepared(readers, checkpoint):
    """Return what makes training batches for the tiny model, and its statistics."""
    motions = {}
    for name in NAMES:
        motions[name] = motion = MotionStatistics()
        for seed in range(3):
            rng = np.random.default_rng(seed)
            steps = np.arange(30)
            poses = np.zeros((30, 7))
            poses[:, :3] = np.cumsum(rng.normal(0, 0.02, (30, 3)), axis=0) + [0.4, 0.1, 0.0]
            poses[:, 6] = 1
            timed = TimedPoses(steps / 10, poses)
            motion.add(str(seed), timed, timed, np.ones(30))
    found = normalisation(motions, {"whole": 3, "blind": 1})
    policy = load(checkpoint)
    return policy, found


def make(prepared, **options):
    """Return a Preparation for the tiny model."""
    policy, found = prepared
    config = policy.model.config
    return Preparation(config, policy.tokenizer, NAMES, found, **options)


def test_a_prepared_batch_is_what_the_model_reads(readers, prepared):
    policy, found = prepared
    batch = source(readers)[0]
    ready = make(prepared)(batch)
    ready.inputs.check_shapes(policy.model.config)
    ready.inputs.check_values(policy.model.config)
    flow = FlowMatching(policy.model.config.flow)
    flow.encode(ready.translations, ready.rotations_wxyz, ready.grippers)
    statistics = found.pooled.translation
    low, high = np.array(statistics.low), np.array(statistics.high)
    expected = 2 * (batch.translations_m.numpy() - low) / (high - low + 1e-6) - 1
    assert ready.translations.numpy() == pytest.approx(expected, abs=1e-4)
    assert ready.inputs.images[0].dtype == torch.uint8


def test_pictures_are_brought_to_the_models_size_but_never_squashed(readers, prepared):
    policy, found = prepared
    batch = source(readers)[0]
    image = make(prepared)(batch).inputs.images[0]
    assert image.shape[-2:] == (84, 112)
    shades = batch.images["external"].float().mean(dim=(1, 2, 3))
    assert image.float().mean(dim=(1, 2, 3)) == pytest.approx(shades.numpy(), abs=1)
    square = dataclasses.replace(policy.model.config.cameras[0], width=84)
    config = dataclasses.replace(
        policy.model.config, cameras=(square, *policy.model.config.cameras[1:])
    )
    with pytest.raises(ValueError, match="external pictures are stored as 280x210, which does not"):
        Preparation(config, policy.tokenizer, NAMES, found)


def test_where_the_robot_stood_is_hidden_if_nobody_knows(readers, prepared):
    batch = source(readers)[0]
    state = make(prepared)(batch).inputs.state
    assert torch.equal(state[~batch.state_known, :7], torch.tensor([[0, 0, 0, 1.0, 0, 0, 0]] * 2))
    assert state[batch.state_known, :3].abs().min() > 0


def test_rotations_of_the_state_are_seen_from_the_reference_of_their_robot(readers, prepared):
    turned = quat.from_rotation_vector([0.0, 0.0, 0.4])
    batch = source(readers)[0]
    state = make(prepared, references_xyzw={"whole": turned})(batch).inputs.state.numpy()
    known = batch.state_known.numpy()
    expected = quat.wxyz_from_xyzw(quat.inverse(turned))
    assert state[known, 3:7] == pytest.approx(np.tile(expected, (known.sum(), 1)), abs=1e-6)


@pytest.mark.parametrize(
    ("names", "references", "text"),
    [
        (("whole", "other"), {}, "other has no statistics"),
        (("whole",), {"blind": [0, 0, 0, 1]}, "blind is not in the mixture"),
    ],
)
def test_a_mixture_that_does_not_fit_is_refused(prepared, names, references, text):
    policy, found = prepared
    with pytest.raises(ValueError, match=text):
        Preparation(policy.model.config, policy.tokenizer, names, found, references_xyzw=references)


def test_a_missing_camera_is_black_or_hidden(readers, prepared):
    batch = source(readers)[0]
    names = [camera.name for camera in prepared[0].model.config.cameras]
    wrist = names.index("wrist")
    shown = make(prepared, augmentation=Augmentation())(batch).inputs
    assert shown.present is None
    assert not shown.images[wrist][~batch.present["wrist"]].any()
    hidden = make(prepared, mask_missing=True)(batch).inputs
    assert torch.equal(hidden.present[:, wrist], batch.present["wrist"])


def test_augmentation_follows_the_samples_own_dice(readers, prepared):
    batch = source(readers)[0]
    varied = make(prepared, augmentation=Augmentation())
    first, again = varied(batch).inputs.images[0], varied(batch).inputs.images[0]
    assert torch.equal(first, again)
    parts = [varied(source(readers, rank=rank, ranks=2)[0]).inputs.images[0] for rank in (0, 1)]
    assert torch.allclose(torch.cat(parts), first, atol=1e-6)


def chances(**chosen):
    """Return dice that change nothing but what is chosen by its place."""
    dice = torch.full((1, 16), 0.5)
    for place, value in chosen.items():
        dice[0, int(place[1:])] = value
    return dice


def test_no_variation_is_the_same_picture():
    picture = torch.rand(1, 3, 21, 28)
    still = Augmentation(crop=1.0, rotate_deg=0, brightness=0, contrast=0, saturation=0)
    for camera in ("external", "wrist"):
        assert torch.allclose(augment(picture, chances(), camera, still), picture, atol=1e-6)


def test_a_crop_keeps_its_share_and_moves_within_the_rest():
    ramp = torch.linspace(0, 1, 281)[None, None, None, :-1].expand(1, 3, 210, 280).contiguous()
    crop = Augmentation(crop=0.9, rotate_deg=0, brightness=0, contrast=0, saturation=0)
    for dice, begin in ((0.0, 0.0), (0.5, 0.05), (1.0, 0.1)):
        seen = augment(ramp, chances(_1=dice), "external", crop)[0, 0, 100]
        assert float(seen[0]) == pytest.approx(begin, abs=0.01)
        assert float(seen[-1]) == pytest.approx(begin + 0.9, abs=0.01)


def test_a_turn_keeps_angles_and_lengths():
    picture = torch.zeros(1, 3, 210, 280)
    picture[:, :, 100:110, 20:260] = 1  # a level bar
    turn = Augmentation(crop=1.0, rotate_deg=30, brightness=0, contrast=0, saturation=0)
    turned = augment(picture, chances(_3=1.0), "external", turn)[0, 0]
    rows, columns = torch.nonzero(turned[20:-20, 60:-60] > 0.5, as_tuple=True)
    slope = np.polyfit(columns.numpy(), rows.numpy(), 1)[0]
    assert abs(np.degrees(np.arctan(slope))) == pytest.approx(30, abs=1)
    assert augment(picture, chances(_3=1.0), "wrist", turn).equal(picture)


@pytest.mark.parametrize("change", [{"crop": 0.0}, {"rotate_deg": -1}, {"contrast": 2}])
def test_an_impossible_variation_is_refused(change):
    with pytest.raises(ValueError, match=f"augmentation.{next(iter(change))} is"):
        Augmentation(**change)


def test_dice_are_even_and_a_samples_own():
    thrown = np.stack([sample_chances(3, sample) for sample in range(2000)])
    assert thrown.min() >= 0 and thrown.max() < 1
    assert thrown.mean(axis=0) == pytest.approx(0.5, abs=0.03)
    assert abs(np.corrcoef(thrown.T) - np.eye(16)).max() < 0.1
    assert np.array_equal(sample_chances(3, 5), thrown[5])
    assert not np.array_equal(sample_chances(4, 5), thrown[5])


def test_presets_take_the_stored_pictures_as_they_are():
    cameras = preset("spear1").cameras
    assert {(c.name, c.width, c.height) for c in cameras} == {
        ("external", 280, 210),
        ("wrist", 112, 112),
    }
