"""Frames of Ego-Exo4D with masks, from a release in its own form to a list, and its videos."""

import json
import shutil

import av
import egoexo4d_release as release_writer
import numpy as np
import pytest
from egoexo4d_release import FRAMES, HEIGHT, WIDTH, shade, write_release, write_video
from PIL import Image

from spear_training.annotation import ego_exo4d
from spear_training.annotation import sources as frame_folder
from spear_training.annotation.annotate import main
from spear_training.annotation.ego_exo4d import unpacked, video_frames
from spear_training.annotation.records import RecordError, decode_mask, read_items


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Write a release once."""
    return write_release(tmp_path_factory.mktemp("egoexo4d"))


@pytest.fixture
def release(original, tmp_path):
    """Return a copy of the release."""
    return shutil.copytree(original, tmp_path / "release")


@pytest.fixture
def imported(release, tmp_path):
    """Return a function that imports the release and returns its exit code and items."""

    def run(*more, out=tmp_path / "out"):
        code = main(["import", "egoexo4d", "--release", str(release), "--out", str(out), *more])
        path = out / "items.jsonl"
        written = path.exists() and path.stat().st_size > 0
        return code, ({item.id: item for item in read_items(path)} if written else {})

    return run


def picture(out, item):
    """Read an item's picture."""
    return np.asarray(Image.open(out / item.image))


def test_cooking_and_bike_frames_with_masks_of_exo_cameras_are_taken(imported, tmp_path, capsys):
    code, items = imported()
    assert code == 1  # cam02 has no video
    assert list(items) == [
        "lab_bike_2/cam01_0/000003",
        *(f"lab_cook_1/cam01_0/0000{number}" for number in ("00", "12", "30", "31")),
    ]
    rejected = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").open()]
    assert [found["unit"] for found in rejected] == ["lab_cook_1/cam02_0"]
    assert "cam02.mp4 cannot be opened" in rejected[0]["reason"]
    assert "5 pictures, 1 rejected" in capsys.readouterr().out


def test_a_picture_is_its_frame_and_a_mask_lies_where_it_was(imported, tmp_path):
    items = imported()[1]
    item = items["lab_cook_1/cam01_0/000012"]
    image = picture(tmp_path / "out", item)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image[-1, -1].astype(int).mean() == pytest.approx(shade(12, 0), abs=4)
    assert [found.label for found in item.objects] == [
        "stainless bowl",
        "wooden spoon",
        "wooden spoon",
    ]
    mask = decode_mask(item.objects[0].mask)
    assert mask.shape == (HEIGHT, WIDTH)
    assert np.array_equal(np.argwhere(mask)[[0, -1]], [[30, 40], [89, 119]])


def test_large_frames_are_stored_as_small_as_the_annotated_picture_allows(
    imported, release, tmp_path
):
    video = release / "takes/lab_bike_2/frame_aligned_videos/cam01.mp4"
    video.unlink()
    write_video(video, size=(1280, 720), frames=5)
    item = imported()[1]["lab_bike_2/cam01_0/000003"]
    assert picture(tmp_path / "out", item).shape == (630, 1120, 3)
    mask = decode_mask(item.objects[0].mask)  # stored for 320x180
    assert np.array_equal(np.argwhere(mask)[[0, -1]], [[105, 140], [314, 419]])
    item = imported("--full-size", out=tmp_path / "full")[1]["lab_bike_2/cam01_0/000003"]
    assert picture(tmp_path / "full", item).shape == (720, 1280, 3)


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--scenarios", "soccer", "--views", "both"], []),  # its video is not there
        (["--scenarios", "bike repair"], ["lab_bike_2/cam01_0/000003"]),
        (["--splits", "val"], ["lab_bike_2/cam01_0/000003"]),
        (["--views", "ego"], ["lab_cook_1/aria01_214-1/000006"]),
        (
            ["--every", "2", "--splits", "train"],
            ["lab_cook_1/cam01_0/000000", "lab_cook_1/cam01_0/000030"],
        ),
    ],
)
def test_what_is_taken_can_be_chosen(imported, options, ids):
    assert list(imported(*options)[1]) == ids


def test_smaller_videos_lie_beside_the_whole_ones(imported, release, tmp_path):
    videos = release / "takes/lab_bike_2/frame_aligned_videos"
    write_video(videos / "downscaled/448/cam01.mp4", 9, size=(160, 90), frames=5)
    items = imported("--videos", "448", "--splits", "val")[1]
    item = items["lab_bike_2/cam01_0/000003"]
    assert picture(tmp_path / "out", item).shape == (90, 160, 3)
    mask = decode_mask(item.objects[0].mask)
    assert np.array_equal(np.argwhere(mask)[[0, -1]], [[15, 20], [44, 59]])


def test_bad_masks_and_frames_are_named_and_the_others_are_taken(imported, release, tmp_path):
    good = release_writer.stored_mask(40, 30, 120, 90)
    masks = {
        "wrench_0": {"cam01_0": {"annotation": {"3": good, "400": good}}},
        "pump_0": {"cam01_0": {"annotation": {"3": good | {"encodedMask": "%%%"}}}},
        "tube_0": {"cam01_0": {"annotation": {"3": good | {"encodedMask": "E4UwJkA"}}}},
        "tyre_0": {"cam01_0": {"annotation": {"3": {"width": 320}}}},
        "rim_0": {
            "cam01_0": {"annotation": {"3": release_writer.stored_mask(1, 1, 9, 9, (100, 100))}}
        },
    }
    release_writer.write(
        release / "annotations" / "relations_val.json",
        {"annotations": {"uid-bike": {"object_masks": masks}}},
    )
    code, items = imported("--splits", "val")
    assert code == 1
    assert [found.label for found in items["lab_bike_2/cam01_0/000003"].objects] == ["wrench"]
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "out/rejected.jsonl").open()]
    assert len(reasons) == 5
    for words in (
        "frame 3, pump_0: the mask is damaged: lz-string cannot unpack it",
        "frame 3, tube_0: the mask is damaged",
        "frame 3, tyre_0: the mask lacks",
        "frame 3, rim_0: the mask is 100x100, the video 320x180",
        "picture 400 of cam01.mp4 cannot be had",
    ):
        assert any(reason.startswith(words) for reason in reasons), (words, reasons)


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_list(
    imported, tmp_path, monkeypatch
):
    code, whole = imported(out=tmp_path / "whole")
    real, calls = frame_folder.write_atomically, []

    def full(path, data):
        calls.append(path)
        if len(calls) == 5:
            raise OSError(28, "No space left on device", str(path))
        real(path, data)

    monkeypatch.setattr(frame_folder, "write_atomically", full)
    assert imported()[0] == 2
    monkeypatch.undo()
    assert not list((tmp_path / "out").rglob(".*.part.*"))
    videos = []
    opened = frame_folder.FrameFolder.write_picture
    monkeypatch.setattr(
        frame_folder.FrameFolder,
        "write_picture",
        lambda *words: videos.append(words[1]) or opened(*words),
    )
    assert imported() == (code, whole)
    assert "lab_bike_2/cam01_0" not in videos


def test_parts_make_the_same_list_as_one_run(imported, tmp_path, capsys):
    code, whole = imported(out=tmp_path / "whole")
    codes = []
    for shard in ("1", "0"):
        words = ["--shard", shard, "--num-shards", "2"]
        found = imported(*words)
        codes.append(found[0])
    assert "the list is written when the others are" in capsys.readouterr().out
    assert max(codes) == code
    assert found[1] == whole


def test_other_options_into_the_same_folder_are_refused(imported, capsys):
    imported()
    assert imported("--every", "2")[0] == 2
    assert "every = 1, but it is now 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("takes.json", None, "takes.json cannot be read (No such file or directory)"),
        ("takes.json", "[{", "takes.json is damaged"),
        ("takes.json", "{}", "takes.json is not what Ego-Exo4D has under this name"),
        ("takes.json", "[]", "is about take uid-cook, which takes.json lacks"),
        ("takes.json", "[{}]", "takes.json has another form than known: KeyError('take_uid')"),
        ("annotations/relations_val.json", "{}", "is not what Ego-Exo4D has"),
        (
            "annotations/relations_val.json",
            '{"annotations": {"uid-bike": {"object_masks": {"wrench_0": {"cam01_0": {}}}}}}',
            "take uid-bike is written in another form than known: KeyError('annotation')",
        ),
    ],
)
def test_a_release_that_is_not_whole_is_named(imported, release, file, content, words, capsys):
    if content is None:
        (release / file).unlink()
    else:
        (release / file).write_text(content)
    assert imported()[0] == 2
    assert words in capsys.readouterr().err


def test_a_scenario_that_does_not_exist_is_told_with_those_that_do(imported, capsys):
    assert imported("--scenarios", "Cokking")[0] == 2
    assert "there are Bike Repair, Cooking, Soccer" in capsys.readouterr().err


# Some of these are in the tests of the Rust port lz_str.
@pytest.mark.parametrize(
    ("packed", "text"),
    [
        ("E4UwJkA", "red"),
        (
            "CoCwpgBAjgrglgYwNYQEYCcD2B3AdhAM0wA8IArGAWwAcBnCTANzHQgBdwIAbAQwC8AnhAAmmAOZA",
            "The quick brown fox jumps over the lazy dog",
        ),
        ("IY18ZXkA", "a" * 41),
    ],
)
def test_what_lz_string_packed_is_unpacked(packed, text):
    assert unpacked(packed) == text


@pytest.mark.parametrize(
    "packed", ["", "Q", "w", "E4%wJkA", "////", "CoCwpgBAjgrglgYwNYQ", None, 3]
)
def test_what_lz_string_cannot_unpack_is_damaged(packed):
    with pytest.raises(RecordError, match="lz-string cannot unpack it"):
        unpacked(packed)


# Pictures of a video ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Return the path of a video with B frames."""
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    write_video(path)
    return path


def grey(image):
    """Return the grey of a frame, off its mark."""
    return image[-1, -1].astype(int).mean()


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
def test_every_picture_is_the_one_of_its_number(tmp_path, codec):
    path = tmp_path / "video.mp4"
    more = {"x265-params": "keyint=10:bframes=3:open-gop=1:log-level=none"}
    write_video(path, codec=codec, **(more if codec == "libx265" else {}))
    rng = np.random.default_rng(0)
    for count in (1, 5, FRAMES):
        wanted = rng.choice(FRAMES, count, replace=False).tolist()
        found = dict(video_frames(path, wanted))
        assert list(found) == sorted(wanted)
        for number, image in found.items():
            assert grey(image) == pytest.approx(shade(number), abs=3.0)


def test_what_lies_between_is_not_decoded(video, monkeypatch):
    decoded = []
    real = ego_exo4d._decode_to

    def counting(frames, stamp):
        return real((decoded.append(frame) or frame for frame in frames), stamp)

    monkeypatch.setattr(ego_exo4d, "_decode_to", counting)
    assert len(dict(video_frames(video, [0, 1, 40, 41]))) == 4
    assert len({frame.pts for frame in decoded}) == len(decoded) < 15


def test_a_number_beyond_the_end_is_said_and_the_others_come(video):
    found = dict(video_frames(video, [3, FRAMES]))
    assert grey(found[3]) == pytest.approx(shade(3), abs=3.0)
    assert str(found[FRAMES]) == f"picture 45 of video.mp4 cannot be had: the video has {FRAMES}"


@pytest.mark.parametrize("content", [b"", b"not a video at all"])
def test_no_video_is_said(tmp_path, content):
    path = tmp_path / "video.mp4"
    path.write_bytes(content)
    with pytest.raises(RecordError, match="cannot be opened"):
        next(video_frames(path, [0]))
    with pytest.raises(RecordError, match="No such file"):
        next(video_frames(tmp_path / "missing.mp4", [0]))


def test_a_cut_video_is_said(video, tmp_path):
    path = tmp_path / "cut.mp4"
    path.write_bytes(video.read_bytes()[:-400])
    with pytest.raises(RecordError, match="cut.mp4"):
        next(video_frames(path, [0]))


def test_damage_inside_spares_the_pictures_before(video, tmp_path):
    with av.open(str(video)) as file:
        places = [packet.pos for packet in file.demux(video=0) if packet.size]
    data = bytearray(video.read_bytes())
    data[places[20] : places[30]] = bytes(places[30] - places[20])
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    found = dict(video_frames(path, [5, 25, 41]))
    assert grey(found[5]) == pytest.approx(shade(5), abs=3.0)
    assert isinstance(found[25], RecordError)
    assert grey(found[41]) == pytest.approx(shade(41), abs=3.0)
