"""Golden values of the trial metrics, and what they say when there is little to say."""

from pathlib import Path

import numpy as np
import pytest

from spear_bringup.control.gate import Reason, Verdict
from spear_bringup.trials.bag_reader import CommandSeries, GateSeries, StateSeries, TrialSeries
from spear_bringup.trials.metrics import measure, reason_counts, speeds, spread, verdict_counts


def commands(stamps_s, sent=None, verdicts=None, **fields):
    """Return a CommandSeries with zeros where nothing is given."""
    count = len(stamps_s)
    known = {
        "reasons": np.zeros(count, int),
        "seams_m": np.zeros(count),
        "seams_rad": np.zeros(count),
        "observation_ages_s": np.zeros(count),
        "time_slips_s": np.zeros(count),
        "gripper_openings": np.ones(count),
    }
    return CommandSeries(
        stamps_s=np.array(stamps_s, float),
        sent=np.ones(count, bool) if sent is None else np.array(sent, bool),
        verdicts=np.zeros(count, int) if verdicts is None else np.array(verdicts),
        **{**known, **{key: np.array(value, float) for key, value in fields.items()}},
    )


def states(stamps_s, positions_m, orientations_xyzw=None):
    """Return a StateSeries of measured poses."""
    count = len(stamps_s)
    if orientations_xyzw is None:
        orientations_xyzw = np.tile([1.0, 0, 0, 0], (count, 1))
    poses = np.hstack([positions_m, orientations_xyzw])
    return StateSeries(np.asarray(stamps_s, float), poses, poses, np.ones(count))


def trial(**series):
    """Return a TrialSeries of 0 .. 10 s."""
    return TrialSeries(Path("bag"), 0.0, 10.0, **series)


def test_spread_is_median_99th_percentile_and_largest():
    values = spread(np.arange(1, 101))
    assert (values.p50, values.max) == (50.5, 100.0)
    assert values.p99 == pytest.approx(99.01)
    assert spread([np.nan, 3.0, np.inf]) == spread([3.0])
    assert spread([]) is None and spread([np.nan]) is None


def test_seams_periods_and_ages_are_of_sent_commands_only():
    metrics = measure(
        trial(
            commands=commands(
                [1.0, 1.2, 1.4, 1.6, 2.1],
                sent=[True, True, False, True, True],
                seams_m=[0.001, 0.002, 0.5, 0.003, 0.004],
                seams_rad=[0.01, 0.02, 0.9, 0.03, 0.04],
                observation_ages_s=[0.10, 0.11, 7.0, 0.12, 0.13],
            )
        )
    )
    assert metrics.commands == 4
    assert metrics.seam_mm.max == pytest.approx(4.0)
    assert metrics.seam_mm.p50 == pytest.approx(2.5)
    assert metrics.seam_mm.p99 == pytest.approx(3.97)
    assert metrics.seam_mrad.max == pytest.approx(40.0)
    assert metrics.command_period_s.max == pytest.approx(0.5)
    assert metrics.command_period_s.p50 == pytest.approx(0.4)
    assert metrics.command_period_s.p99 == pytest.approx(0.498)
    assert metrics.camera_to_command_age_s.max == pytest.approx(0.13)


def test_verdicts_come_from_the_gates_counters_and_count_from_the_start_of_the_trial():
    gate = GateSeries(
        stamps_s=np.array([0.0, 1.0, 2.0]),
        verdicts=np.zeros(3, int),
        reasons=np.zeros(3, int),
        counts=np.array([[10, 1, 0, 4, 0], [20, 1, 1, 4, 0], [35, 2, 1, 4, 0]]),
    )
    found = verdict_counts(commands([1.0, 2.0]), gate)
    assert found == {"PASS": 25, "CLAMPED": 1, "HELD": 1, "REJECTED": 0, "STOPPED": 0}


def test_verdicts_are_counted_from_commands_when_the_driver_began_anew():
    series = commands([1.0, 2.0, 3.0], verdicts=[0, 0, 3])
    expected = {"PASS": 2, "CLAMPED": 0, "HELD": 0, "REJECTED": 1, "STOPPED": 0}
    counts = np.array([[10, 0, 0, 0, 0], [12, 0, 0, 0, 0], [1, 0, 0, 0, 0], [13, 0, 0, 0, 0]])
    restarted = GateSeries(np.arange(4.0), np.zeros(4, int), np.zeros(4, int), counts)
    assert verdict_counts(series, restarted) == expected
    assert verdict_counts(series, GateSeries()) == expected


def gate(rows):
    """Return a GateSeries of (stamp, verdict, reason)."""
    stamps_s, verdicts, reasons = (np.array(column) for column in zip(*rows, strict=True))
    return GateSeries(stamps_s, verdicts, reasons, np.zeros((len(rows), 5), int))


def test_reasons_are_counted_by_verdict_with_the_most_frequent_first():
    series = commands(
        [1.0, 2.0, 3.0, 4.0, 5.0],
        verdicts=[Verdict.REJECTED, Verdict.REJECTED, Verdict.PASS, Verdict.REJECTED, Verdict.HELD],
        reasons=[Reason.STALE, Reason.JUMP, Reason.NONE, Reason.JUMP, Reason.LATE],
    )
    found = reason_counts(series, GateSeries())
    assert found == {"HELD": {"LATE": 1}, "REJECTED": {"JUMP": 2, "STALE": 1}}
    assert list(found["REJECTED"]) == ["JUMP", "STALE"]
    assert measure(trial(commands=series)).reasons == found


def test_a_repeated_gate_status_is_one_verdict_and_the_one_before_the_trial_is_none():
    before = (0.5, Verdict.HELD, Reason.NOT_ACTIVE)
    of_chunk = (1.0, Verdict.REJECTED, Reason.JUMP)
    own = (2.0, Verdict.HELD, Reason.CHUNK_TIMEOUT)
    series = commands([1.0], verdicts=[Verdict.REJECTED], reasons=[Reason.JUMP])
    found = reason_counts(series, gate([before, before, of_chunk, of_chunk, own, own, own]))
    assert found == {"HELD": {"CHUNK_TIMEOUT": 1}, "REJECTED": {"JUMP": 1}}


def test_speed_of_a_straight_line_and_of_a_turn():
    stamps = np.arange(0, 2, 0.01)
    positions = np.outer(stamps, [0.0, 0.12, 0.05])  # 0.13 m/s
    half = stamps * 0.4 / 2  # 0.4 rad/s about z
    orientations = np.column_stack([0 * half, 0 * half, np.sin(half), np.cos(half)])
    times, linear, angular = speeds(states(stamps, positions, orientations))
    assert linear == pytest.approx(np.full(len(times), 0.13))
    assert angular == pytest.approx(np.full(len(times), 0.4))
    metrics = measure(trial(states=states(stamps, positions, orientations)))
    assert metrics.path_length_m == pytest.approx(0.13 * 1.99)


def test_speed_does_not_jump_where_stamps_are_uneven():
    stamps = np.cumsum(np.tile([0.001, 0.019], 100))  # a busy machine
    _, linear, _ = speeds(states(stamps, np.outer(stamps, [0.1, 0, 0])))
    assert linear == pytest.approx(np.full(len(linear), 0.1))


def test_a_trial_with_nothing_in_it_has_no_numbers_and_no_error():
    metrics = measure(trial())
    assert metrics.commands == 0 and metrics.seam_mm is None and metrics.command_period_s is None
    assert metrics.real_time_factor is None and metrics.path_length_m is None
    assert sum(metrics.verdicts.values()) == 0
    one = measure(trial(commands=commands([1.0])))
    assert one.commands == 1 and one.command_period_s is None and one.seam_mm.max == 0.0


def test_the_real_time_factor_is_the_mean_of_what_was_recorded():
    assert measure(trial(real_time_factors=np.array([0.9, 1.0]))).real_time_factor == 0.95


def test_verdict_names_are_those_of_the_message():
    from spear_msgs.msg import GateStatus

    for name in verdict_counts(CommandSeries(), GateSeries()):
        assert hasattr(GateStatus, f"VERDICT_{name}")
