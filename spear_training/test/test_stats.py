"""The program stats: from stores to statistics.json, again for nothing, and refusals."""

import json
from dataclasses import replace

import numpy as np
import pytest
from store_fixture import made_store

from spear_policy.inference.model_card import CARD_FILE, ModelCard
from spear_policy.inference.statistics import statistics_hash
from spear_training.data.mixture import load_mixture
from spear_training.data.reader import DataFileError
from spear_training.data.statistics.motion import KEPT, gather
from spear_training.data.statistics.normalisation import read_normalisation
from spear_training.data.stats import main
from spear_training.data.store.reader import FrameStore


@pytest.fixture
def lab(tmp_path):
    """Return a mixture file of two stores, one of them faster."""
    made_store(tmp_path, name="slow", episodes=3)
    made_store(tmp_path, name="fast", episodes=2, hz=20.0)
    path = tmp_path / "mixture.yaml"
    path.write_text("parts:\n- {store: slow, weight: 3}\n- {store: fast, weight: 1, name: quick}\n")
    return path


def run(lab, *options):
    """Run the program and return its exit status and what it wrote."""
    out = lab.parent / "out"
    status = main(["--mixture", str(lab), "--out", str(out), *options])
    return status, read_normalisation(out / "statistics.json")


def test_a_mixture_is_counted_and_its_statistics_come_back(lab, capsys):
    status, found = run(lab)
    assert status == 0, capsys.readouterr()
    assert set(found.by_dataset) == {"slow", "quick"}
    # 1 cm a frame: in a second the slow robot makes 10 cm, the fast one 20; 5 mm are commanded.
    values = json.loads((lab.parent / "out" / "statistics.json").read_text())
    assert values["data_sets"]["slow"]["share"] == 0.75
    assert 0.106 < found.pooled.translation.high[0] < 0.205
    alone = run(lab, "--only", "slow")[1].pooled.translation.high[0]
    assert alone == pytest.approx(0.105, rel=2e-3)
    assert "quick" in capsys.readouterr().out


def test_what_was_counted_is_kept_beside_the_store(lab, monkeypatch):
    _, first = run(lab)
    assert (lab.parent / "slow" / KEPT).exists()

    def never(*_):
        raise AssertionError("counted again")

    monkeypatch.setattr("spear_training.data.stats.gather", never)
    _, again = run(lab, "--scheme", "dataset_quantile")
    assert again.by_dataset["slow"] != again.by_dataset["quick"]
    assert run(lab)[1] == first


def test_several_processes_count_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("spear_training.data.statistics.motion._EPISODES_A_TASK", 3)
    store = made_store(tmp_path, name="many", episodes=5, length=3)
    alone = list(gather(store))
    helped = list(gather(store, workers=2))
    assert [done for done, _ in alone] == [done for done, _ in helped] == [3, 5]
    assert alone[-1][1].to_dict() == helped[-1][1].to_dict()


def test_an_odd_dataset_is_pointed_out(lab, capsys):
    made_store(lab.parent, name="odd", gripper_commands=np.ones(20), episodes=1, length=20)
    lab.write_text(lab.read_text() + "- {store: odd, weight: 1}\n")
    status, _ = run(lab)
    assert status == 1
    assert "odd: the gripper is commanded to be open in 100.0 %" in " ".join(
        capsys.readouterr().out.split()
    )


def test_const_bounds_are_the_users(lab):
    _, found = run(lab, "--scheme", "const", "--const-translation-m", "0.2")
    assert found.pooled.translation.high == (0.2, 0.2, 0.2)


def test_a_checkpoint_carries_them_with_their_hash(lab, checkpoint, tmp_path):
    _, found = run(lab)
    card = ModelCard.read(checkpoint / CARD_FILE)
    mine = found.card_statistics()
    card = replace(card, statistics=mine, statistics_hash=statistics_hash(mine))
    card.write(tmp_path / CARD_FILE)
    again = ModelCard.read(tmp_path / CARD_FILE)
    assert again.statistics == found.pooled
    assert again.statistics_hash == found.hashes()["pooled"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("parts: []", "parts must be there"),
        ("- 3", "no mixture"),
        ("parts:\n- {store: slow}", "'weight' is missing"),
        ("parts:\n- {store: slow, weight: -1}", "must be positive"),
        ("parts:\n- {store: slow, weight: 1, colour: red}", "a part has no colour"),
        ("parts:\n- {store: slow, weight: 1}\n- {store: slow, weight: 1}", "a name of its own"),
        ("parts:\n- {store: gone, weight: 1}", "1 of 1 stores are missing.*gone: make it with"),
        ("parts: [", "no mixture"),
    ],
)
def test_a_mixture_that_cannot_be_used_says_why(lab, text, said):
    lab.write_text(text)
    with pytest.raises(DataFileError, match=said):
        load_mixture(lab)


def test_the_papers_mixture_is_found_below_a_folder(tmp_path):
    with pytest.raises(DataFileError, match="needs the folder"):
        load_mixture("oxe")
    with pytest.raises(DataFileError, match="25 of 25 stores are missing"):
        load_mixture("oxe", tmp_path)
    (tmp_path / "bridge").mkdir()
    (tmp_path / "droid").mkdir()
    parts = load_mixture("oxe", tmp_path, only=["bridge", "droid"])
    assert {part.name: part.weight for part in parts} == {"bridge": 18.0, "droid": 35.0}
    with pytest.raises(DataFileError, match="no row 'bridges'"):
        load_mixture("oxe", tmp_path, only=["bridges"])


def test_edited_statistics_are_refused(lab):
    run(lab)
    path = lab.parent / "out" / "statistics.json"
    values = json.loads(path.read_text())
    values["pooled"]["statistics"]["translation"]["low"][0] -= 0.1
    path.write_text(json.dumps(values))
    with pytest.raises(DataFileError, match="somebody edited them"):
        read_normalisation(path)
    path.write_text("{}")
    with pytest.raises(DataFileError, match="is no spear-statistics 1"):
        read_normalisation(path)


def test_a_damaged_episode_stops_it_with_a_sentence(lab, capsys):
    store = FrameStore(lab.parent / "slow")
    states = np.array(store.states)
    states[30, 0] = np.nan
    broken = type("Broken", (), {"__getattr__": lambda self, name: getattr(store, name)})()
    broken.states = states
    with pytest.raises(DataFileError, match="slow episode 1: pose 10 has a number that is not"):
        list(gather(broken))
