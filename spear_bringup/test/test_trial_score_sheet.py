"""The score sheet survives crashes; recordings leave a row whatever happens."""

import json
import os
import resource
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from spear_bringup.trials.recording import (
    OUTCOMES,
    Recording,
    TrialEnd,
    TrialRequest,
    TrialRow,
    append_row,
    git_revision,
    read_rows,
    recover,
    shortfall,
    software_versions,
)

ROW = TrialRow(
    trial_id="one",
    instruction="lift the bowl, façon à la mode",
    seed=4,
    outcome="SUCCESS",
    started="2026-01-31T09:30:00.000+01:00",
    ended="2026-01-31T09:31:00.000+01:00",
    duration_s=60.0,
    wall_duration_s=61.5,
    bag="bags/one",
    score=0.5,
    notes='a "quoted" note\nwith two lines',
    messages={"/command": 3},
    missing=["/ee_state"],
    software={"numpy": "2"},
)


def test_rows_come_back_as_they_went_in(tmp_path):
    sheet = tmp_path / "deep/scores.jsonl"
    append_row(sheet, ROW)
    append_row(sheet, replace(ROW, trial_id="two", seed=None, score=None))
    rows, warnings = read_rows(sheet)
    assert rows == [ROW, replace(ROW, trial_id="two", seed=None, score=None)] and not warnings
    assert len(sheet.read_text().splitlines()) == 2
    assert json.loads(sheet.read_text().splitlines()[0])["schema_version"] == 1
    assert read_rows(tmp_path / "none.jsonl") == ([], [])


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_torn_last_row_is_skipped_with_a_warning_and_swallows_no_later_row(tmp_path, cut):
    sheet = tmp_path / "scores.jsonl"
    append_row(sheet, ROW)
    append_row(sheet, replace(ROW, trial_id="torn"))
    os.truncate(sheet, sheet.stat().st_size - cut)
    rows, warnings = read_rows(sheet)
    if cut == 1:  # only the line end is missing: the row is whole
        assert [row.trial_id for row in rows] == ["one", "torn"] and not warnings
    else:
        assert [row.trial_id for row in rows] == ["one"]
        assert len(warnings) == 1 and "line 2 is skipped" in warnings[0]
    append_row(sheet, replace(ROW, trial_id="later"))
    assert read_rows(sheet)[0][-1].trial_id == "later"


def test_a_row_of_another_schema_is_skipped_with_a_warning(tmp_path):
    sheet = tmp_path / "scores.jsonl"
    sheet.write_text('{"schema_version": 99, "trial_id": "future"}\n[1, 2]\n')
    rows, warnings = read_rows(sheet)
    assert not rows and "schema_version 99; this program reads 1" in warnings[0]
    assert len(warnings) == 2


def test_a_row_that_does_not_fit_on_the_disk_leaves_the_sheet_as_it_was(tmp_path):
    sheet = tmp_path / "scores.jsonl"
    append_row(sheet, ROW)
    before = sheet.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, limits[1]))
    try:
        with pytest.raises(OSError):
            append_row(sheet, replace(ROW, trial_id="two"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sheet.read_bytes() == before


def test_an_unknown_outcome_is_refused():
    with pytest.raises(ValueError, match="outcome is 'GOOD'"):
        replace(ROW, outcome="GOOD")


def test_outcomes_are_in_the_order_of_the_message():
    from spear_msgs.msg import TrialInfo

    assert [getattr(TrialInfo, f"OUTCOME_{name}") for name in OUTCOMES] == [0, 1, 2, 3]


def test_a_trial_id_that_is_no_file_name_is_refused():
    for name in ("../up", "a/b", ".hidden", "a b", "x" * 200):
        with pytest.raises(ValueError, match="is no file name"):
            TrialRequest("x", trial_id=name)
    assert TrialRequest("x").trial_id != ""


def test_recover_leaves_the_trial_of_a_living_recorder_alone(tmp_path):
    recording = Recording(tmp_path, TrialRequest("x", trial_id="alive"), 0.0)
    assert recover(tmp_path) == []
    row = recording.end(TrialEnd("SUCCESS"), 1.0)
    assert row.outcome == "SUCCESS" and recover(tmp_path) == []
    assert [r.trial_id for r in read_rows(tmp_path / "scores.jsonl")[0]] == ["alive"]


def test_recover_gives_a_row_to_a_trial_whose_process_died_at_once(tmp_path):
    script = (
        "import os, sys; from pathlib import Path;"
        "from spear_bringup.trials.recording import Recording, TrialRequest;"
        "Recording(Path(sys.argv[1]), TrialRequest('x', 3, 'ada', 'dead'), 0.0); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script, tmp_path]).returncode == 9
    (row,) = recover(tmp_path)
    assert (row.trial_id, row.seed, row.operator, row.outcome) == ("dead", 3, "ada", "ABORTED")
    assert "the recorder died" in row.fault
    assert read_rows(tmp_path / "scores.jsonl")[0] == [row] and recover(tmp_path) == []


def test_the_shortfall_names_what_is_free_and_what_is_wanted(tmp_path):
    assert shortfall(tmp_path / "not/there/yet", 1.0) is None
    assert "a trial wants 1000000000000 MB; make room" in shortfall(tmp_path, 1e12)


def test_versions_name_what_is_installed():
    versions = software_versions()
    assert versions["numpy"] == np.__version__ and versions["rosbags"]
    assert git_revision() is None or len(git_revision()) >= 7
