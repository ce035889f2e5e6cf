"""Folders of photographs and BridgeData episodes as lists of pictures."""

import os

import numpy as np
import pytest
from PIL import Image
from rgbd_list import write_items

from spear_training.annotation.annotate import main
from spear_training.annotation.frame import read_frame
from spear_training.annotation.records import RecordError, photograph_items, read_items
from spear_training.data.oxe.reader import BridgeReader


@pytest.fixture
def folder(tmp_path):
    """Return a function that makes empty files below a folder and returns it."""

    def make(*names):
        for name in names:
            path = tmp_path / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / "photos"

    return make


def test_pictures_are_found_at_any_depth_in_a_fixed_order(folder):
    found = folder("b.JPG", "a/z.png", "a/y.webp", "B.jpeg", "c/d/e.TIFF", "ä.bmp", "b.jpg.txt")
    items = photograph_items(found)
    assert [item.id for item in items] == sorted(item.id for item in items)
    assert {item.id for item in items} == {
        "B.jpeg",
        "a/y.webp",
        "a/z.png",
        "b.JPG",
        "c/d/e.TIFF",
        "ä.bmp",
    }
    assert all(item.image == item.id and item.objects is None for item in items)


def test_hidden_files_and_the_folder_of_the_results_do_not_count(folder):
    found = folder("a.jpg", "._a.jpg", ".trash/b.jpg", "out/page/c.jpg", "output.jpg")
    items = photograph_items(found, but_not=found / "out")
    assert [item.id for item in items] == ["a.jpg", "output.jpg"]


def test_what_is_left_out_is_named_and_counted(folder, capsys, tmp_path):
    found = folder("a/one.cr2", "two.CR2", "notes", ".DS_Store", "film.mp4")
    stages = ["--detector", "given", "--segmenter", "given", "--geometry", "depth"]
    words = ["--images", str(found), "--out", str(tmp_path / "out"), *stages]
    said = "left out: 2 .cr2, 1 .mp4, 1 hidden, 1 without suffix"
    assert main(words) == 2
    assert "has no pictures (.avif, .bmp, .gif, .heic, .heif" in (err := capsys.readouterr().err)
    assert said in err
    folder("three.jpg")
    assert main(words) == 1
    assert f"{found}: {said}" in capsys.readouterr().err


def test_links_count_and_a_link_to_above_has_an_end(folder, tmp_path):
    found = folder("a.jpg")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.jpg").touch()
    (found / "linked").symlink_to(tmp_path / "more")
    (found / "again").symlink_to(found)
    (found / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert [item.id for item in photograph_items(found)] == ["a.jpg", "gone.jpg", "linked/b.jpg"]


def test_names_that_are_no_text_and_empty_folders_are_refused_in_a_sentence(folder, tmp_path):
    found = folder("notes.txt")
    with pytest.raises(RecordError, match="has no pictures"):
        photograph_items(found)
    with pytest.raises(RecordError, match="is no folder"):
        photograph_items(tmp_path / "nowhere")
    (found / os.fsdecode(b"caf\xe9.jpg")).touch()
    with pytest.raises(RecordError, match="is not in UTF-8; rename it"):
        photograph_items(found)


@pytest.mark.parametrize("name", ["new\nline.jpg", "a\u2028b.jpg", 'quo"te.jpg', "a\x85b.jpg"])
def test_odd_names_survive_a_list(folder, name, tmp_path):

    items = photograph_items(folder(name))
    write_items(tmp_path / "items.jsonl", items)
    assert read_items(tmp_path / "items.jsonl") == items


def test_real_bridge_frames_become_pictures_of_the_scene_as_it_was(
    bridge_rlds_dir, tmp_path, capsys
):
    words = ["import", "bridge", "--input", str(bridge_rlds_dir), "--out", str(tmp_path)]
    assert main([*words, "--every", "4", "--every-episode", "12"]) == 0
    items = read_items(tmp_path / "items.jsonl")
    assert [item.id for item in items] == [
        f"bridge_dataset-train/{episode:06d}/{step:03d}"
        for episode in (0, 12, 24)
        for step in (0, 4, 8)
    ]
    assert "9 pictures, 0 rejected" in capsys.readouterr().out
    episode = BridgeReader(bridge_rlds_dir).read(12)
    stored = np.asarray(Image.open(tmp_path / items[4].image))
    original = episode.images["external"][4]
    assert stored.shape == original.shape == (64, 64, 3)
    assert np.abs(stored.astype(int) - original).mean() < 3
    frame = read_frame(items[4], tmp_path)
    assert frame.image.shape == (630, 840, 3)
    assert frame.visible.all()  # 4:3 again, so nothing is cropped or padded
    assert frame.fit.crop_width == frame.fit.crop_height == 64


def test_only_squares_were_squashed(write_rlds, make_record, make_features, tmp_path):
    words = ["import", "bridge", "--input", str(write_rlds([[make_record(0)]])), "--out"]
    assert main([*words, str(tmp_path / "out"), "--every", "3"]) == 0
    items = read_items(tmp_path / "out" / "items.jsonl")
    assert [item.native_aspect for item in items] == [pytest.approx(4 / 3)] * 2


def test_an_episode_that_cannot_be_used_is_named_and_the_others_are_taken(
    write_rlds, make_record, tmp_path, capsys
):
    silent = make_record(1, **{"steps/language_instruction": [b""] * 4})
    release = write_rlds([[make_record(0), silent, make_record(2)]])
    words = ["import", "bridge", "--input", str(release), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert [item.id for item in read_items(tmp_path / "out" / "items.jsonl")] == [
        "toy-train/000000/000",
        "toy-train/000002/000",
    ]
    assert "instruction is empty" in (tmp_path / "out" / "rejected.jsonl").read_text()
    capsys.readouterr()
    assert main(words) == 1  # it is kept, and so is that something was rejected
    assert "[1/3] toy-train/000000: kept" in capsys.readouterr().out


def test_a_folder_that_is_no_data_set_is_named(tmp_path, capsys):
    assert main(["import", "bridge", "--input", str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    assert "dataset_info.json" in capsys.readouterr().err
    assert main(["import", "bridge", "--input", "x", "--out", "y", "--every", "0"]) == 2
    assert "--every must be 1 or more" in capsys.readouterr().err
