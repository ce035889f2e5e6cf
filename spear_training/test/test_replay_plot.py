"""The drawing of followed chunks: on the recorded lines, and off them where something is wrong."""

import cv2
import numpy as np
import pytest
from import_fixture import import_quietly
from store_fixture import made_store

from spear_policy.geometry import quaternions as quat
from spear_training.data import replay_plot
from spear_training.data.oxe.table import load_table
from spear_training.data.replay_plot import follow_chunks, main, worst
from spear_training.data.sources import OxeSource
from spear_training.data.store.reader import FrameStore, episode_motion
from spear_training.data.targets import ChunkTargets, chunk_targets


@pytest.fixture(scope="module")
def bridge(bridge_rlds_dir, tmp_path_factory):
    """Return the store of the first real episodes."""
    root = tmp_path_factory.mktemp("stores") / "bridge"
    import_quietly(OxeSource(bridge_rlds_dir, load_table()["bridge"]), root, "0-17")
    return FrameStore(root)


def test_chunks_of_real_episodes_end_where_the_arm_was(bridge):
    for episode in range(18):
        chunks = follow_chunks(episode_motion(bridge, episode), [0, 2, 4, 6, 8])
        assert max(worst(chunks)) < 1e-3  # mm and degrees
        assert [chunk.errors is not None for chunk in chunks] == [True] * 5


@pytest.mark.parametrize("wrong", ["base_frame_rotation", "sign", "mirrored", "millimetres"])
def test_a_wrong_frame_sign_or_unit_is_off_the_lines(bridge, monkeypatch, wrong):
    def spoilt(measured, commanded, commands, moments_s):
        found = chunk_targets(measured, commanded, commands, moments_s)
        moved, turned = found.translations_m, found.rotations_xyzw
        if wrong == "base_frame_rotation":
            start = measured.at(moments_s)[:, None, 3:]
            turned = quat.multiply(quat.multiply(start, turned), quat.inverse(start))
        elif wrong == "sign":
            turned = quat.inverse(turned)
        elif wrong == "mirrored":
            moved = moved * [1, -1, 1]
        else:
            moved = moved * 1e3
        return ChunkTargets(moved, turned, found.grippers, found.recorded)

    monkeypatch.setattr(replay_plot, "chunk_targets", spoilt)
    away = worst(follow_chunks(episode_motion(bridge, 17), [0, 4]))
    assert max(away) > 3.0


def test_a_chunk_after_the_last_frame_is_held_and_not_judged(tmp_path):
    store = made_store(tmp_path, episodes=1, length=5)
    chunks = follow_chunks(episode_motion(store, 0), [4])
    assert chunks[0].errors is None
    assert worst(chunks) == (0.0, 0.0)
    assert np.allclose(chunks[0].path.poses[1:, :3], chunks[0].path.poses[1, :3])


def test_commanded_poses_are_what_is_followed(tmp_path):
    store = made_store(tmp_path, episodes=1)
    motion = episode_motion(store, 0)
    assert worst(follow_chunks(motion, [0, 5]))[0] < 1e-3
    # The commands of this store are 5 mm ahead of the arm.
    reached = follow_chunks(motion, [0])[0].path.at([0.2])[0]
    assert reached[0] == pytest.approx(motion.measured.at([0.2])[0, 0] + 0.005)


def test_a_picture_is_drawn(bridge, tmp_path, capsys):
    out = tmp_path / "new" / "plot.png"
    assert main([str(bridge.root), "--episode", "3", "--moments", "3", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "turn lever vertical to front" in said
    assert "chunks of 3 moments end at most 0.00 mm and 0.00 deg from" in said
    drawn = cv2.imread(str(out))
    assert min(drawn.shape[:2]) > 1000
    # The colours of three moments are there, those of the others are not.
    colours = [tuple(int(c[i : i + 2], 16) for i in (5, 3, 1)) for c in replay_plot.COLOURS]
    found = [int((np.abs(drawn.astype(int) - colour).max(axis=2) < 6).sum()) for colour in colours]
    assert min(found[:3]) > 300
    assert max(found[3:]) < 100


def test_a_wrong_line_can_be_seen_in_the_picture(tmp_path, monkeypatch):
    store = made_store(tmp_path, episodes=1)
    given = [str(store.root), "--moments", "1", "--out"]
    assert main([*given, str(tmp_path / "right.png")]) == 0

    def mirrored(*arguments):
        found = chunk_targets(*arguments)
        moved = found.translations_m * [1, -1, 1]
        return ChunkTargets(moved, found.rotations_xyzw, found.grippers, found.recorded)

    monkeypatch.setattr(replay_plot, "chunk_targets", mirrored)
    assert main([*given, str(tmp_path / "wrong.png")]) == 0
    right, wrong = (cv2.imread(str(tmp_path / f"{name}.png")) for name in ("right", "wrong"))
    height = len(right)
    differing = (right != wrong).any(axis=2)
    panels = differing[: int(0.84 * height), : right.shape[1] // 2]
    assert differing.sum() > 500
    assert panels.sum() > 0.9 * differing.sum()  # in the lines of y, and nowhere else


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--episode", "9", "--out", "x.png"], "no episode 9, it has 1"),
        (["--out", "x.doc"], "doc"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(tmp_path, arguments, said, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = made_store(tmp_path, episodes=1, length=5)
    assert main([str(store.root), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("*x.*"))


def test_a_folder_without_a_store_is_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path), "--out", str(tmp_path / "x.png")]) == 2
    assert "is no store" in capsys.readouterr().err
