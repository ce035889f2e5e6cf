"""What can be imported, and how it is said: bags, LeRobot folders, rows, episodes, progress."""

import io
import json

import numpy as np
import pytest
from bag_fixture import OUTCOME, trial
from import_fixture import import_quietly
from rich.console import Console
from store_fixture import made_store

from spear_bringup.trials.bag_repair import repair
from spear_policy.inference.episode import EpisodeError
from spear_training.data.bags.reader import BagRules, store_metadata
from spear_training.data.import_episodes import main
from spear_training.data.reader import DataFileError, spread
from spear_training.data.sources import (
    BagSource,
    LeRobotSource,
    parse_selection,
    selection_words,
)
from spear_training.data.store.format import Reject
from spear_training.data.store.reader import FrameStore
from spear_training.data.store_import import LEAST_GROUPS, MOST_REJECTS, Forecast, ImportProgress

KEYS = """\
robot: tester
cameras: {external: observation.images.external}
pose: {encoding: quaternion, key: observation.state, order: xyzw}
command: reached
gripper_opening:
  {encoding: linear, key: observation.state, first_column: 7, closed_at: 0, open_at: 1}
gripper_command: from_measured
"""


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    """Leave the page out, which takes longer than these stores; test_store_report.py is for it."""
    where = "spear_training.data.import_run.write_report"
    monkeypatch.setattr(where, lambda root: root / "report.html")


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    """Return a folder of four bags: two successes, a failure, and one that was never closed."""
    folder = tmp_path_factory.mktemp("trials") / "lab"
    for name, outcome in (("a", "SUCCESS"), ("b", "FAILURE"), ("c", "SUCCESS"), ("d", "SUCCESS")):
        words = OUTCOME | {"outcome": outcome, "instruction": f"do {name}"}
        trial(seconds=1.0).write(folder / "bags" / name, words=words)
    (folder / "bags" / "d" / "metadata.yaml").unlink()
    return folder


def run(*arguments):
    """Run the program to a store, in this process."""
    return main(["--to", "store", "--workers", "1", *map(str, arguments)])


def test_bags_of_successes_become_a_store(trials, tmp_path, capsys):
    root = tmp_path / "lab"
    assert run("--format", "bag", "--input", trials, "--output", root) == 1
    store = FrameStore(root)
    metadata = store.metadata
    assert (metadata.robot, metadata.control_hz, metadata.camera_names) == (
        "fr3",
        15,
        ("external", "wrist"),
    )
    assert (metadata.action_from, metadata.gripper_from) == ("commanded", "commanded")
    assert [store.episodes.sentences(i) for i in range(2)] == [("do a",), ("do c",)]
    assert np.allclose(store.actions[:, 0] - store.states[:, 0], 0.01, atol=1e-4)
    reasons = [json.loads(line)["reason"] for line in open(root / "meta/rejects.jsonl")]
    assert "outcome is FAILURE" in reasons[0]
    assert "never closed; fix it with" in reasons[1]
    assert "rejected: 2, see" in capsys.readouterr().out


def test_a_repaired_bag_is_taken_by_the_same_store(tmp_path, capsys):
    for name in "ab":
        trial(seconds=1.0).write(tmp_path / "lab" / name)
    mcap = tmp_path / "lab/b/b.mcap"
    mcap.write_bytes(mcap.read_bytes()[:-2000])
    given = ("--format", "bag", "--input", tmp_path / "lab", "--output", tmp_path / "store")
    assert run(*given) == 1
    assert len(FrameStore(tmp_path / "store").episodes) == 1
    repair(tmp_path / "lab/b")
    assert run(*given, "--retry-rejected") == 0, capsys.readouterr()
    assert FrameStore(tmp_path / "store").episodes.source_index.tolist() == [0, 1]


def test_all_outcomes_can_be_asked_for(trials, tmp_path):
    root = tmp_path / "lab"
    given = ("--format", "bag", "--input", trials, "--output", root)
    assert run(*given, "--outcomes", "any", "--episodes", "0-2") == 0
    assert FrameStore(root).metadata.episodes == 3
    assert FrameStore(root).metadata.source["outcomes"] == "any"
    none = tmp_path / "none"
    assert run(*given[:-1], none, "--outcomes", "aborted") == 2


def test_another_bag_between_the_others_is_noticed(tmp_path):
    names = {}
    for folder, bags in (("before", "abd"), ("moved", "abd"), ("after", "abc")):
        for bag in bags:
            (tmp_path / folder / "lab" / bag).mkdir(parents=True)
            (tmp_path / folder / "lab" / bag / "0.mcap").touch()
        source = BagSource(tmp_path / folder / "lab")
        names[folder] = source.identity(source.open())
    assert names["before"] == names["moved"] != names["after"]
    assert names["before"].startswith("3 episodes of lab, names ")


def test_the_robot_of_a_namespace_and_bags_of_two_robots(trials, tmp_path):
    with pytest.raises(DataFileError, match="none of 4 bags can be used; .*no ee_state"):
        store_metadata(trials, BagRules(namespace="left"))
    one, two = trial(seconds=0.6), trial(seconds=0.6)
    for _, _, message in two.rows:
        if "EndEffectorState" in message.__msgtype__:
            message.header.frame_id = "wx250s_base"
    for name, bench in (("one", one), ("two", two)):
        bench.write(tmp_path / "mixed" / name)
    with pytest.raises(DataFileError, match="bags of fr3 and wx250s: a store is of one robot"):
        store_metadata(tmp_path / "mixed")


def test_bags_that_all_fail_alike_are_not_all_read(tmp_path, monkeypatch):
    reads = []

    def read(reader, index):
        reads.append(index)
        raise EpisodeError(f"/bags/{index}: no ee_state")

    for number in range(20):
        (tmp_path / f"{number}.mcap").touch()
    monkeypatch.setattr("spear_training.data.bags.reader.BagReader.read", read)
    with pytest.raises(DataFileError, match="none of 8 bags looked at can be used; /bags/.*no ee_"):
        store_metadata(tmp_path)
    assert len(reads) == 8


def test_a_store_is_a_lerobot_folder_and_can_be_imported_again(tmp_path):
    first = made_store(tmp_path, episodes=3, length=5)
    metadata = import_quietly(LeRobotSource(first.root), tmp_path / "again")
    again = FrameStore(tmp_path / "again")
    assert np.array_equal(first.states, again.states)
    assert np.array_equal(first.actions, again.actions)
    assert again.episodes.sentences(2) == first.episodes.sentences(2)
    assert (metadata.control_hz, metadata.action_from) == (10, "commanded")


def test_a_lerobot_folder_is_read_by_a_users_keys(tmp_path, capsys):
    first = made_store(tmp_path, episodes=2, length=5)
    (first.root / "meta" / "spear.json").unlink()
    given = ("--format", "lerobot", "--input", first.root, "--output", tmp_path / "out")
    assert run(*given) == 2
    assert "say which columns hold what" in capsys.readouterr().err
    (tmp_path / "keys.yaml").write_text(KEYS)
    assert run(*given, "--keys", tmp_path / "keys.yaml") == 0
    store = FrameStore(tmp_path / "out")
    assert store.metadata.camera_names == ("external",)
    assert store.metadata.action_from == "reached"
    assert np.array_equal(store.actions[:, :7], first.states[:, :7])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "oxe"], "--format oxe needs --row"),
        (["--format", "bag", "--row", "bridge"], "--row is for --format oxe, not for bag"),
        (["--format", "lerobot", "--split", "val"], "--split is for --format bridge_rlds and oxe"),
        (["--format", "bag", "--overwrite"], "--overwrite is for --to episodes"),
        (["--format", "bag", "--workers", "0"], "--workers is 0: it must be at least 1"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(arguments, said, tmp_path, capsys):
    given = ["--to", "store", "--input", str(tmp_path), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as caught:
        main([*given, *arguments])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_what_is_made_of_bags_must_be_said(tmp_path, capsys):
    given = ["--format", "bag", "--input", str(tmp_path), "--output", str(tmp_path / "stores")]
    with pytest.raises(SystemExit):
        main(given)
    assert "--to is missing: store to train from, episodes to replay" in capsys.readouterr().err
    assert not (tmp_path / "stores").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "oxe", "--row", "bridges"], "no row 'bridges' in the mixture table"),
        (["--format", "oxe", "--row", "bridge", "--table", "gone.yaml"], "gone.yaml: cannot be"),
        (["--format", "lerobot", "--keys", "gone.yaml"], "gone.yaml: cannot be read"),
        (["--format", "bag"], "no bag there"),
        (["--format", "lerobot"], "info.json: cannot be read"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(arguments, said, tmp_path, capsys):
    folder = tmp_path / "folder"
    folder.mkdir()
    assert run(*arguments, "--input", folder, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "1,", "a", "1-", "3-1", "5", "2-5", "-1"])
def test_a_selection_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="--episodes"):
        parse_selection(text, 5)


def test_a_selection_is_numbers_ranges_or_all():
    assert parse_selection("all", 3) == [0, 1, 2]
    assert parse_selection("4,0, 2-3 ,3", 5) == [4, 0, 2, 3]


@pytest.mark.parametrize("chosen", [[0], [4, 0, 2, 3], list(range(50)), [1, 2, 9, 8, 7]])
def test_a_selection_in_words_means_the_same(chosen):
    assert parse_selection(selection_words(chosen), 50) == chosen


def test_some_are_spread_over_all():
    assert spread(range(10, 20), 4) == [10, 13, 16, 19]
    assert spread([5, 6], 4) == [5, 6]
    assert spread([5, 6], 1) == [5]
    assert spread([], 3) == []


def test_files_stay_below_100_mb_and_are_several():
    assert Forecast(episode_bytes=2e6).group_episodes(10**5) == 50
    assert Forecast(episode_bytes=5e8).group_episodes(10**5) == 1
    assert Forecast(episode_bytes=1.0).group_episodes(10**9) == 1000
    assert Forecast(episode_bytes=1.0).group_episodes(160) == 160 / LEAST_GROUPS
    assert Forecast(episode_bytes=None, reason="dark").group_episodes(3) == 1


def test_only_the_first_rejects_are_named():
    out = io.StringIO()
    with ImportProgress(Console(file=out, width=200)) as progress:
        progress.begin(total=100)
        for number in range(MOST_REJECTS + 5):
            progress.rejected([Reject(number, True, "dark [red]"), Reject(number, False, "other")])
    lines = out.getvalue().splitlines()
    assert lines[1] == "episode 1: REJECTED, dark [red]"
    assert len(lines) == MOST_REJECTS + 1
    assert lines[-1] == "further rejects are not shown here; the report names them all"
