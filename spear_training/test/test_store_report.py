"""The page of a store and the page of a mixture: one file each, true numbers, nothing unescaped."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from page_reading import Page, decoded
from store_fixture import MadeUp, finish_store, made_store, write_group

from spear_policy.geometry.quaternions import unwrap_rotation_vectors
from spear_policy.inference.episode import EpisodeError
from spear_policy.inference.image_geometry import plan_fit
from spear_policy.shared.pages import svg_address
from spear_training.data.reader import DataFileError, NotSelectedError
from spear_training.data.report import (
    draw_ranges,
    fit_words,
    main,
    reject_groups,
    time_words,
    write_report,
    write_statistics_report,
)
from spear_training.data.statistics.motion import Oddity, sample_motion
from spear_training.data.statistics.normalisation import normalisation
from spear_training.data.store.format import Reject
from spear_training.data.store.reader import FrameStore, episode_motion
from spear_training.data.store.writer import begin_store

NASTY = 'put <b>salt</b> & "pepper" on $5 of $6 {{ 7 * 7 }}'


class Odd(MadeUp):
    """Made-up episodes with a nasty sentence; some are not there."""

    def read(self, index):
        """Return an episode, or raise."""
        if index in (1, 4):
            raise EpisodeError(f"/lab/{index}.npy: step {index} <script>alert(1)</script>")
        if index == 2:
            raise NotSelectedError("not selected: another kitchen")
        episode = super().read(index)
        if index == 3:
            images = {"external": episode.images["external"]}
            object.__setattr__(episode, "images", images)
            object.__setattr__(episode, "instruction", NASTY)
        return episode


@pytest.fixture(scope="module")
def odd_store(tmp_path_factory):
    """Return a store with rejects, a missing wrist camera and a nasty sentence."""
    reader = Odd(name="odd <i>lab", episodes=6, length=12)
    root = tmp_path_factory.mktemp("stores") / "odd"
    begin_store(root, reader.metadata())
    write_group(root, 0, reader, range(6))
    finish_store(root, 1)
    return FrameStore(root)


@pytest.fixture(scope="module")
def page(odd_store):
    """Return its page."""
    return Page(write_report(odd_store.root))


def test_counts_are_those_of_the_store(page, odd_store):
    assert len(odd_store) == 12 + 15 + 17
    assert f"3 episodes 15 frames (median) {len(odd_store)} frames at 10 a second" in page.words
    assert "4 s of motion" in page.words
    assert "2 rejected cannot be used 1 not selected" in page.words
    assert "Rejected: 2 episodes that cannot be used" in page.words
    assert ["1", "do task 0"] in page.rows
    assert "3 different instructions, and 3 further sentences" in page.words
    rejects = [row for row in page.rows if row[-1] == "1, 4"]
    assert rejects[0][:2] == ["2", "/lab/1.npy: step 1 <script>alert(1)</script>"]
    assert "1 of 3 episodes; black pictures stand for it" in page.words
    position = next(row for row in page.rows if row[0] == "position x [m]")
    assert position[1:] == ["0.300", "0.300", "0.370", "0.460", "0.460"]


def test_text_from_the_data_is_escaped(page):
    assert "script" not in page.tags
    assert "i" not in page.tags
    assert "b" not in page.tags
    assert NASTY in page.words
    for drawing in page.drawings():
        ET.fromstring(drawing)


def test_pictures_on_the_page_are_those_of_the_store(page, odd_store):
    pictures = page.pictures()
    # Three episodes with four frames each, two of them with a wrist camera.
    sizes = [picture.shape[:2] for picture in pictures]
    assert sizes.count((210, 280)) == 12
    assert sizes.count((112, 112)) == 8
    assert np.array_equal(pictures[0], odd_store.image(0, "external"))
    assert "It has no wrist camera." in page.words


def test_the_page_is_the_same_when_it_is_made_again(odd_store, capsys):
    before = (odd_store.root / "report.html").read_bytes()
    assert main([str(odd_store.root)]) == 0
    assert (odd_store.root / "report.html").read_bytes() == before
    assert capsys.readouterr().out.strip().endswith("report.html")


def test_a_folder_without_a_store_is_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "is no store" in capsys.readouterr().err


def test_what_is_damaged_is_said_on_the_page_and_the_rest_is_there(tmp_path, undrawn):
    store = made_store(tmp_path, episodes=3, length=8)
    path = store.root / "data/chunk-000/file-000.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    states = np.load(store.root / "lookup/states.npy")
    states[9, 0] = np.nan
    np.save(store.root / "lookup/states.npy", states)
    page = Page(write_report(store.root))
    assert "episode 1: pose 1 has a number that is not finite" in page.words
    assert page.words.count("file-000.parquet") == 3  # a row of the sheet each
    assert "3 episodes" in page.words
    assert not page.pictures()


def test_oddities_and_a_wrong_rate_are_pointed_out(tmp_path, undrawn):
    still = np.tile([0.4, 0, 0.3, 0, 0, 0, 1.0], (20, 1))
    still[:, :3] += np.linspace(0, 1e-4, 20)[:, None]
    slow = np.arange(20) / 4.0
    slow[15:] += 3.0
    changes = {"poses": still, "command_poses": still, "stamps_s": slow}
    store = made_store(tmp_path, episodes=1, length=20, **changes)
    page = Page(write_report(store.root))
    assert "nothing moves at" in page.words
    assert (
        "frames are 0.2500 s apart (median), but its rate is said to be 10 a second" in page.words
    )
    assert "1 episodes end at a hole in time" in page.words


def test_a_large_store_is_sampled(tmp_path):
    store = made_store(tmp_path, episodes=10, length=5)
    sample = sample_motion(store, most_frames=40)
    assert (sample.motion.episodes, sample.whole) == (4, False)
    assert sample.interval_s == pytest.approx(0.1)
    assert sample_motion(store).whole
    with pytest.raises(IndexError, match="no episode 10"):
        episode_motion(store, 10)


def test_reasons_that_differ_in_names_only_are_one_group():
    rejects = [
        Reject(n, True, f"/data/{n}.tfrecord: record {n}: pose {n} is 'x{n}'") for n in range(7)
    ]
    rejects.append(Reject(9, True, "it is dark"))
    groups = reject_groups(rejects)
    assert [(group.count, group.examples) for group in groups] == [(7, (0, 1, 2, 3, 4)), (1, (9,))]
    assert groups[0].reason == rejects[0].reason


def test_words_for_times_and_fits():
    assert [time_words(s) for s in (59, 600, 36000)] == ["59 s", "10.0 min", "10.0 h"]
    assert fit_words(plan_fit(640, 480, 280, 210)) == "from 640x480"
    assert "640x640 with" not in fit_words(plan_fit(640, 640, 280, 210))
    assert fit_words(plan_fit(1280, 720, 280, 210)) == (
        "from 1280x720, of it 960x720 from the middle"
    )
    assert "black around it" in fit_words(plan_fit(800, 400, 280, 210))


def test_angles_go_on_beyond_half_a_turn():
    angles = np.linspace(0, 4 * np.pi, 60)
    wrapped = (angles + np.pi) % (2 * np.pi) - np.pi
    vectors = wrapped[:, None] * [0.6, 0, 0.8]
    assert np.allclose(np.linalg.norm(unwrap_rotation_vectors(vectors), axis=1), angles)


@pytest.fixture
def undrawn(monkeypatch):
    """Leave out the drawings, which take longer than all the rest."""
    where = "spear_training.data.report.svg_address"
    monkeypatch.setattr(where, lambda *_: "data:image/svg+xml;base64,")


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """Return motions of two stores, and their shares."""
    folder = tmp_path_factory.mktemp("mixture")
    motions = {}
    for name, hz in (("slow", 10.0), ("<fast>", 20.0)):
        store = made_store(folder, name=name, hz=hz, episodes=2)
        motions[name] = sample_motion(store).motion
    return motions, {"slow": 0.75, "<fast>": 0.25}


def test_the_page_of_a_mixture_shows_what_it_is_normalised_by(mixture, tmp_path):
    motions, shares = mixture
    found = normalisation(motions, shares)
    odd = [Oddity("<fast>", "it is <fast>")]
    page = Page(write_statistics_report(tmp_path, motions, shares, found, odd))
    assert "2 datasets, 82 moments" in page.words
    assert found.hashes()["pooled"] in page.words
    assert "<fast> : it is <fast>" in page.words
    assert ["75.0 %", "2", "41"] == next(row for row in page.rows if row[0] == "slow")[1:4]
    x = next(row for row in page.rows if row[:2] == ["whole mixture", "x"])
    assert float(x[3]) == pytest.approx(found.pooled.translation.high[0], abs=1e-4)
    drawings = page.drawings()
    assert len(drawings) == 2
    assert all("slow" in drawing and "&lt;fast&gt;" in drawing for drawing in drawings)


def test_each_dataset_s_numbers_are_shown_where_they_differ(mixture, tmp_path):
    motions, shares = mixture
    found = normalisation(motions, shares, "dataset_quantile")
    page = Page(write_statistics_report(tmp_path, motions, shares, found, []))
    assert "Nothing is odd." in page.words
    assert [row[:2] for row in page.rows].count(["slow", "x"]) == 2
    assert found.hashes()["<fast>"] in page.words


def test_a_mixture_of_25_is_one_drawing_with_25_rows(mixture):
    motion, pooled = mixture[0]["slow"], normalisation(*mixture).pooled
    motions = {f"dataset_{number}": motion for number in range(25)}
    address = svg_address(lambda figure: draw_ranges(figure, motions, pooled, "position"), 11, 7)
    drawing = decoded(address)[1].decode()
    assert all(f"dataset_{number}" in drawing for number in range(25))


def test_metadata_of_a_row_with_their_doubts_are_shown(tmp_path, undrawn):
    store = made_store(tmp_path, episodes=2, length=8)
    path = store.root / "meta/spear.json"
    metadata = json.loads(path.read_text())
    subset = {"name": "sink", "expected_share": 0.41, "doubt": "nobody <names> it"}
    metadata |= {"not_selected": 6, "row": "bridge", "row_hash": "0123456789abcdef"}
    metadata["source"] = {"dataset": "toy", "subset": subset, "notes": ["Squashed."], "empty": None}
    path.write_text(json.dumps(metadata))
    page = Page(write_report(store.root))
    assert "25 % were taken, about 41 % are expected" in page.words
    assert "nobody <names> it" in page.words
    assert "bridge (hash 0123456789ab)" in page.words
    assert "Squashed." in page.words


def test_nothing_is_left_when_the_page_cannot_be_written(odd_store, monkeypatch, undrawn):
    def failing(*_):
        raise OSError(28, "No space left on device")

    before = {path.name for path in odd_store.root.iterdir()}
    monkeypatch.setattr("spear_training.data.report.write_atomically", failing)
    with pytest.raises(OSError, match="No space left"):
        write_report(odd_store.root)
    assert {path.name for path in odd_store.root.iterdir()} == before


def test_damaged_rejects_are_one_sentence(tmp_path):
    store = made_store(tmp_path, episodes=1, length=8)
    (store.root / "meta/rejects.jsonl").write_text("{")
    with pytest.raises(DataFileError, match="rejects.jsonl: cannot be read"):
        write_report(store.root)
