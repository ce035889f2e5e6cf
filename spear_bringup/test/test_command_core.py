"""Each verdict and reason of the gate, made to happen."""

from dataclasses import replace

import numpy as np
import pytest
from chunk_factory import DOWN, resting_history, straight_chunk, turned
from hypothesis import given
from hypothesis import strategies as st

from spear_bringup.control.command_core import CommandCore, GripperLogic
from spear_bringup.control.gate import Reason, Verdict
from spear_bringup.control.limits import Limits, Timing
from spear_policy.geometry.poses import Pose, chunk_from_poses

SLOW = [0.1, 0.0, 0.0]


def make_core(**limits):
    return CommandCore(Limits(**limits), Timing())


def give(core, chunk, now_s=10.05, hold=False, received_age_s=0.0, pose=DOWN, history=None):
    """Judge a chunk, and send its path at once."""
    decision = core.on_chunk(
        chunk,
        hold=hold,
        now_s=now_s,
        received_age_s=received_age_s,
        measured=pose,
        commanded=pose,
        history=history or resting_history(),
    )
    core.on_sent(decision, now_s)
    return decision


def tick(core, now_s, pose=DOWN, moving=True, **kwargs):
    return core.tick(now_s, measured=pose, commanded=pose, moving=moving, **kwargs)


def assert_verdict(decision, verdict, reason):
    assert (decision.gate.verdict, decision.gate.reason) == (verdict, reason)
    assert verdict is Verdict.PASS or decision.gate.text
    assert (decision.path is not None) == decision.gate.moves


def test_a_gentle_chunk_passes_unchanged():
    decision = give(make_core(), straight_chunk(SLOW))
    assert_verdict(decision, Verdict.PASS, Reason.NONE)
    assert decision.gate.chunk_id == 1 and decision.gate.source_id == "policy"
    assert np.isclose(decision.observation_age_s, 0.05)


def test_a_fast_chunk_is_slowed_along_its_own_path():
    asked = give(make_core(max_linear_speed_m_s=1.0), straight_chunk([0.2, 0, 0])).path
    decision = give(make_core(max_linear_speed_m_s=0.14), straight_chunk([0.2, 0, 0]))
    assert_verdict(decision, Verdict.CLAMPED, Reason.LINEAR_SPEED)
    assert decision.gate.time_scale > 1.5
    assert np.array_equal(decision.path.positions_m, asked.positions_m)
    assert np.sum(decision.path.durations_s) > 1.5 * np.sum(asked.durations_s)


def test_a_chunk_that_no_slowing_mends_is_rejected():
    decision = give(make_core(max_linear_speed_m_s=0.01), straight_chunk([0.2, 0, 0]))
    assert_verdict(decision, Verdict.REJECTED, Reason.LINEAR_SPEED)


@pytest.mark.parametrize("field", ["translations_m", "rotations_xyzw", "gripper_openings"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_rejected(field, bad):
    chunk = straight_chunk(SLOW)
    values = getattr(chunk, field).copy()
    values.flat[3] = bad
    decision = give(make_core(), replace(chunk, **{field: values}))
    assert_verdict(decision, Verdict.REJECTED, Reason.NOT_FINITE)


@pytest.mark.parametrize("scale", [0.0, 0.9, 1.1])
def test_quaternions_that_are_not_unit_are_rejected(scale):
    chunk = straight_chunk(SLOW)
    decision = give(make_core(), replace(chunk, rotations_xyzw=chunk.rotations_xyzw * scale))
    assert_verdict(decision, Verdict.REJECTED, Reason.NOT_UNIT_QUATERNION)


@pytest.mark.parametrize("dt_s", [0.0, -0.2, 5.0])
def test_an_absurd_dt_is_rejected(dt_s):
    decision = give(make_core(), replace(straight_chunk(SLOW), dt_s=dt_s))
    assert_verdict(decision, Verdict.REJECTED, Reason.MALFORMED)


def test_a_chunk_without_steps_is_rejected():
    empty = replace(
        straight_chunk(SLOW),
        translations_m=np.zeros((0, 3)),
        rotations_xyzw=np.zeros((0, 4)),
        gripper_openings=np.zeros(0),
    )
    assert_verdict(give(make_core(), empty), Verdict.REJECTED, Reason.MALFORMED)


def test_a_chunk_that_lay_unread_is_stale_by_the_steady_clock():
    decision = give(make_core(), straight_chunk(SLOW), received_age_s=0.5)
    assert_verdict(decision, Verdict.REJECTED, Reason.STALE)


def test_an_old_observation_is_stale_by_the_node_clock():
    decision = give(make_core(), straight_chunk(SLOW, stamp_s=9.15), now_s=10.0)
    assert_verdict(decision, Verdict.REJECTED, Reason.STALE)


def test_a_stamp_from_the_future_is_rejected():
    decision = give(make_core(), straight_chunk(SLOW, stamp_s=10.5))
    assert_verdict(decision, Verdict.REJECTED, Reason.FUTURE)


def test_a_late_chunk_is_held_and_the_running_path_goes_on():
    core = make_core()
    give(core, straight_chunk(SLOW))
    decision = give(core, straight_chunk(SLOW, stamp_s=9.0, chunk_id=2), now_s=10.1)
    assert_verdict(decision, Verdict.HELD, Reason.LATE)
    assert not decision.stop and core.player.moving(10.1)


def test_a_chunk_older_than_the_last_is_rejected():
    core = make_core()
    give(core, straight_chunk(SLOW, chunk_id=7))
    assert_verdict(
        give(core, straight_chunk(SLOW, chunk_id=7)), Verdict.REJECTED, Reason.OUT_OF_ORDER
    )


def test_a_second_publisher_is_noticed_at_once_and_the_arm_holds():
    core = make_core()
    give(core, straight_chunk(SLOW))
    decision = give(core, straight_chunk(SLOW, source_id="intruder"), now_s=10.06)
    assert_verdict(decision, Verdict.HELD, Reason.DUPLICATE_SOURCE)
    assert decision.stop and "intruder" in decision.gate.text


def test_a_restarted_policy_may_take_over_after_silence():
    core = make_core()
    give(core, straight_chunk(SLOW))
    chunk = straight_chunk(SLOW, stamp_s=12.0, source_id="restarted")
    history = resting_history(until_s=12.1)
    assert give(core, chunk, now_s=12.05, history=history).gate.verdict is Verdict.PASS


def test_an_anchor_that_is_not_where_the_arm_was_is_rejected():
    chunk = straight_chunk(SLOW)
    anchor = chunk.anchor_measured + np.array([0.05, 0, 0, 0, 0, 0, 0])
    decision = give(make_core(), replace(chunk, anchor_measured=anchor))
    assert_verdict(decision, Verdict.REJECTED, Reason.ANCHOR_MISMATCH)


def test_a_jump_is_rejected_and_not_slowed():
    assert_verdict(give(make_core(), straight_chunk([1.5, 0, 0])), Verdict.REJECTED, Reason.JUMP)


def test_a_rotation_jump_is_rejected():
    targets = [turned(DOWN, [0, 0, 0.9])] * 5
    chunk = replace(
        chunk_from_poses(10.0, 0.2, DOWN, DOWN, targets, np.ones(5)), chunk_id=1, source_id="p"
    )
    assert_verdict(give(make_core(), chunk), Verdict.REJECTED, Reason.JUMP)


def test_leaving_the_workspace_box_is_rejected():
    decision = give(make_core(workspace_max_m=(0.5, 0.4, 0.7)), straight_chunk([0.2, 0, 0]))
    assert_verdict(decision, Verdict.REJECTED, Reason.OUTSIDE_WORKSPACE)


def test_leaving_the_reach_sphere_is_rejected():
    decision = give(make_core(reach_radius_m=0.5), straight_chunk([0.2, 0, 0]))
    assert_verdict(decision, Verdict.REJECTED, Reason.OUTSIDE_REACH)


def test_an_arm_that_is_outside_may_come_back_but_not_go_further():
    inside = {"workspace_max_m": (0.40, 0.4, 0.7)}
    assert give(make_core(**inside), straight_chunk([-0.1, 0, 0])).gate.moves
    assert not give(make_core(**inside), straight_chunk([0.1, 0, 0])).gate.moves
    assert not give(make_core(**inside), straight_chunk([0, 0.1, 0])).gate.moves


def test_a_hold_stops_at_once_and_the_next_chunk_resumes():
    core = make_core()
    give(core, straight_chunk(SLOW))
    decision = give(core, straight_chunk(SLOW, chunk_id=2), hold=True, now_s=10.1)
    assert_verdict(decision, Verdict.HELD, Reason.HOLD_REQUESTED)
    assert decision.stop
    resumed = straight_chunk(SLOW, stamp_s=10.1, chunk_id=3)
    assert give(core, resumed, now_s=10.15, history=resting_history(until_s=10.2)).path is not None


def test_no_new_chunk_is_held_once_its_steps_are_due():
    core = make_core()
    give(core, straight_chunk(SLOW), now_s=10.05)
    assert tick(core, 10.95, moving=False) is None
    decision = tick(core, 11.01, moving=False)
    assert_verdict(decision, Verdict.HELD, Reason.CHUNK_TIMEOUT)
    assert decision.stop
    assert tick(core, 11.5) is None  # said once


def test_a_timeout_never_comes_before_chunk_timeout_s_from_receipt():
    core = make_core()
    give(core, straight_chunk([0.01, 0, 0], stamp_s=9.21), now_s=10.0)  # last step due at 10.21
    assert tick(core, 10.25, moving=False) is None
    assert tick(core, 10.31, moving=False).gate.reason is Reason.CHUNK_TIMEOUT


def test_an_arm_that_is_late_reaches_the_end_of_its_path_before_it_is_stopped():
    core = make_core()
    give(core, straight_chunk(SLOW))  # ends at 11.0
    assert tick(core, 11.05) is None, "the path was cut at its nominal end"
    assert tick(core, 11.1, moving=False).gate.reason is Reason.CHUNK_TIMEOUT
    give(core, straight_chunk(SLOW, chunk_id=2))
    assert tick(core, 11.31).stop, "an arm that does not come to rest by itself is stopped"


def test_a_chunk_that_would_move_the_arm_for_too_long_is_rejected():
    core = CommandCore(Limits(), Timing(max_chunk_steps=64))
    targets = [Pose(DOWN.position_m + [0.001 * k, 0, 0], DOWN.orientation_xyzw) for k in range(64)]
    long = chunk_from_poses(10.0, 0.2, DOWN, DOWN, targets, np.ones(64))
    decision = give(core, replace(long, chunk_id=1, source_id="policy"))
    assert_verdict(decision, Verdict.REJECTED, Reason.PATH_TIME)
    assert decision.gate.asked > 12.0 and decision.gate.allowed == 2.0
    stretched = give(make_core(max_linear_speed_m_s=0.08), straight_chunk([0.2, 0, 0]))
    assert_verdict(stretched, Verdict.REJECTED, Reason.PATH_TIME)
    assert "stretched" in stretched.gate.text


@pytest.mark.parametrize("change", [{"max_chunk_steps": 4}, {"step_dt_s": 0.1}])
def test_steps_and_dt_must_be_those_that_the_driver_is_set_to(change):
    core = CommandCore(Limits(), Timing(**change))
    decision = give(core, straight_chunk(SLOW))
    assert_verdict(decision, Verdict.REJECTED, Reason.MALFORMED)
    assert next(iter(change)) in decision.gate.text


def test_a_step_too_far_is_a_jump_however_late_the_chunk_comes():
    targets = [Pose(DOWN.position_m + [0.2, 0, 0], DOWN.orientation_xyzw)] * 5
    chunk = chunk_from_poses(10.0, 0.2, DOWN, DOWN, targets, np.ones(5))
    for late_s in (0.05, 0.22, 0.5):
        decision = give(make_core(), replace(chunk, chunk_id=1, source_id="p"), 10.0 + late_s)
        assert_verdict(decision, Verdict.REJECTED, Reason.JUMP)


def test_a_chunk_without_a_source_id_is_rejected():
    decision = give(make_core(), straight_chunk(SLOW, source_id=""))
    assert_verdict(decision, Verdict.REJECTED, Reason.MALFORMED)
    assert "source_id" in decision.gate.text


def test_a_recovery_forgets_the_chunk_ids_from_before():
    core = make_core()
    give(core, straight_chunk(SLOW, chunk_id=7))
    core.latch(Reason.ROBOT_LOST, "no state", 10.1)
    core.release()
    assert give(core, straight_chunk(SLOW, chunk_id=1)).gate.moves


def test_a_path_that_the_arm_refuses_is_rejected_and_the_one_before_goes_on():
    core = make_core()
    give(core, straight_chunk(SLOW))
    running, after = core.player.running, straight_chunk(SLOW, stamp_s=10.1, chunk_id=2)
    decision = core.on_chunk(
        after,
        hold=False,
        now_s=10.12,
        received_age_s=0.0,
        measured=DOWN,
        commanded=DOWN,
        history=resting_history(until_s=10.2),
    )
    refused = core.on_path_refused(decision, "no joint solution near the elbow")
    assert_verdict(refused, Verdict.REJECTED, Reason.PATH_REFUSED)
    assert not refused.stop and core.player.running is running
    assert core.counts[Verdict.PASS] == 1 and core.counts[Verdict.REJECTED] == 1


def test_a_planner_that_fails_is_held_once_and_latched_when_it_fails_again_soon():
    core = make_core()
    give(core, straight_chunk(SLOW))
    first = core.on_planner_failure("the planner failed", 10.2)
    assert_verdict(first, Verdict.HELD, Reason.ROBOT_PLANNER)
    assert first.stop and core.player.running is None
    assert core.on_planner_failure("again", 20.0).gate.verdict is Verdict.HELD
    assert_verdict(core.on_planner_failure("again", 21.0), Verdict.STOPPED, Reason.ROBOT_PLANNER)


def test_chunks_are_held_while_the_manager_is_lost():
    core = make_core()
    core.manager_lost = "the lifecycle manager is silent"
    assert_verdict(give(core, straight_chunk(SLOW)), Verdict.HELD, Reason.MANAGER_LOST)


def oscillate(core, swing_m, seconds, from_s=10.0, axis=(1.0, 0.0, 0.0)):
    """Let the arm go to and fro every 0.2 s; what the core decided by itself."""
    decided = []
    for time_s in from_s + np.arange(0.0, seconds, 0.01):
        offset_m = swing_m / 2 * np.sin(np.pi * (time_s - 10.0) / 0.2)
        place = Pose(DOWN.position_m + offset_m * np.asarray(axis), DOWN.orientation_xyzw)
        decided.append(tick(core, time_s, place))
    return [decision for decision in decided if decision is not None]


def test_going_back_and_forth_is_warned_of_then_held_and_free_again_after_rest():
    calm = {"max_linear_acceleration_m_s2": 13.0, "monitor_factor": 3.0}
    core = CommandCore(Limits(**calm), Timing(max_path_time_s=10.0))
    long = replace(straight_chunk([0.001, 0, 0]), dt_s=0.2)
    give(core, long)
    core.player.running = replace(core.player.running, start_s=20.0)  # a path that goes on
    assert not oscillate(core, 0.03, 1.7)
    warned = give(
        core,
        straight_chunk(SLOW, stamp_s=11.7, chunk_id=2),
        11.75,
        history=resting_history(until_s=11.8),
    )
    assert_verdict(warned, Verdict.PASS, Reason.OSCILLATION)
    assert "back and forth" in warned.gate.text and "along x" in warned.gate.text
    held = oscillate(core, 0.03, 1.5, from_s=11.7)
    assert [decision.gate.reason for decision in held] == [Reason.OSCILLATION]
    assert held[0].stop
    after = straight_chunk(SLOW, stamp_s=13.2, chunk_id=3)
    decision = give(core, after, 13.25, history=resting_history(until_s=13.3))
    assert_verdict(decision, Verdict.HELD, Reason.OSCILLATION)
    for time_s in np.arange(13.2, 15.4, 0.01):
        tick(core, time_s, moving=False)
    after = straight_chunk(SLOW, stamp_s=15.4, chunk_id=4)
    decision = give(core, after, 15.45, history=resting_history(until_s=15.5))
    assert_verdict(decision, Verdict.PASS, Reason.NONE)


def test_small_trembling_is_no_oscillation():
    core = make_core()
    oscillate(core, 0.006, 3.0)
    assert not core.oscillation.text


def test_a_latch_refuses_everything_until_released():
    core = make_core()
    assert core.latch(Reason.ROBOT_LOST, "no state for 0.1 s", 10.0).stop
    assert_verdict(give(core, straight_chunk(SLOW)), Verdict.STOPPED, Reason.ROBOT_LOST)
    core.latch(Reason.ROBOT_REFLEX, "later", 10.1)
    assert core.latched.reason is Reason.ROBOT_LOST, "the first reason stays"
    core.release()
    assert give(core, straight_chunk(SLOW)).gate.moves


def test_chunks_are_held_while_the_driver_is_busy():
    core = make_core()
    core.busy = "homing"
    decision = give(core, straight_chunk(SLOW))
    assert_verdict(decision, Verdict.HELD, Reason.NOT_ACTIVE)
    assert not decision.stop, "the homing motion is not the policy's to stop"


def seen_by_the_monitor(way, axis, seconds, rate_hz):
    """What is told while an end effector goes `way(t)` along or about an axis, from -seconds on."""
    core, told = make_core(), []
    for time_s in np.arange(-seconds, seconds, 1.0 / rate_hz):
        step = way(time_s)
        if axis < 3:
            pose = Pose(DOWN.position_m + step * np.eye(3)[axis], DOWN.orientation_xyzw)
        else:
            pose = turned(DOWN, step * np.eye(3)[axis - 3])
        told += [tick(core, 10.0 + time_s, pose)]
    return [decision for decision in told if decision is not None]


@pytest.mark.parametrize("rate_hz", [100.0, 500.0])
@pytest.mark.parametrize(
    ("axis", "unit", "speed", "acceleration"),
    [
        (0, "m/s", Limits.max_linear_speed_m_s, Limits.max_linear_acceleration_m_s2),
        (5, "rad/s", Limits.max_angular_speed_rad_s, Limits.max_angular_acceleration_rad_s2),
    ],
)
def test_the_monitor_latches_at_twice_the_limits_and_never_at_them(
    axis, unit, speed, acceleration, rate_hz
):
    def steady(factor):
        return seen_by_the_monitor(lambda t: factor * speed * t, axis, 0.05, rate_hz)

    def reversing(factor):  # from full speed back to full speed the other way
        reversal = factor * acceleration
        return seen_by_the_monitor(lambda t: reversal * t**2 / 2, axis, speed / reversal, rate_hz)

    assert not steady(1.0) and not reversing(1.0)
    for told, what in ((steady(2.0), f"{unit};"), (reversing(2.0), f"{unit}^2;")):
        assert_verdict(told[0], Verdict.STOPPED, Reason.LIMIT_MONITOR)
        assert what in told[0].gate.text


def test_the_monitor_latches_when_the_robot_itself_leaves_the_box():
    core = make_core(workspace_max_m=(0.5, 0.4, 0.7))
    decision = None
    for i in range(100):
        pose = Pose(DOWN.position_m + [0.001 * i, 0, 0], DOWN.orientation_xyzw)
        decision = decision or tick(core, 10.0 + 0.01 * i, pose)
    assert_verdict(decision, Verdict.STOPPED, Reason.LIMIT_MONITOR)


def test_the_gripper_follows_the_step_that_is_due():
    core = make_core()
    chunk = replace(straight_chunk(SLOW), gripper_openings=np.array([1.0, 1.0, 0.0, 0.0, 0.0]))
    give(core, chunk, now_s=10.05)
    assert core.gripper_opening(10.1) is None
    assert core.gripper_opening(10.3) == 1.0
    assert core.gripper_opening(10.65) == 1.0, "not before its dwell time"
    assert core.gripper_opening(10.85) == 0.0


def test_the_gripper_waits_for_an_arm_that_was_slowed_down():
    core = make_core(max_linear_speed_m_s=0.08)
    chunk = replace(straight_chunk(SLOW), gripper_openings=np.array([1.0, 1.0, 0.0, 0.0, 0.0]))
    decision = give(core, chunk, now_s=10.05)
    assert decision.gate.time_scale > 1.5
    third_s = 10.05 + float(np.sum(decision.path.durations_s[:3]))
    assert third_s > 10.75
    assert core.gripper_opening(third_s - 0.05) == 1.0
    assert core.gripper_opening(third_s + 0.55) == 0.0


def test_verdicts_are_counted():
    core = make_core()
    give(core, straight_chunk(SLOW))
    give(core, straight_chunk([1.5, 0, 0], chunk_id=2))
    assert core.counts[Verdict.PASS] == 1 and core.counts[Verdict.REJECTED] == 1


def test_verdicts_and_reasons_are_those_of_the_message():
    from spear_msgs.msg import GateStatus

    for member in Verdict:
        assert getattr(GateStatus, f"VERDICT_{member.name}") == member
    for member in Reason:
        assert getattr(GateStatus, f"REASON_{member.name}") == member


@pytest.mark.parametrize(
    "limits",
    [
        {"max_linear_speed_m_s": 0.0},
        {"max_linear_speed_m_s": np.nan},
        {"workspace_min_m": (1.0, 0, 0), "workspace_max_m": (0.5, 1, 1)},
        {"max_time_scale": 0.5},
    ],
)
def test_limits_that_make_no_sense_refuse_to_exist(limits):
    with pytest.raises(ValueError, match="limit|workspace"):
        Limits(**limits)


# GripperLogic: a wavering opening becomes few, firm commands


def test_nothing_is_commanded_before_the_policy_is_clear():
    logic = GripperLogic()
    assert logic.update(0.5, 0.0) is None
    assert logic.update(0.7, 0.1) == 1.0


def test_wavering_around_one_half_changes_nothing():
    logic = GripperLogic()
    logic.update(1.0, 0.0)
    assert all(logic.update(0.5 + 0.09 * (-1) ** k, 10.0 + k) == 1.0 for k in range(20))


def test_a_switch_waits_for_the_dwell_time():
    logic = GripperLogic(min_dwell_s=0.5)
    logic.update(1.0, 0.0)
    assert logic.update(0.0, 0.3) == 1.0
    assert logic.update(0.0, 0.6) == 0.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_two_switches_are_never_closer_than_the_dwell_time(openings):
    logic, switches, before = GripperLogic(min_dwell_s=0.5), [], None
    for k, opening in enumerate(openings):
        target = logic.update(opening, 0.1 * k)
        if target != before:
            switches.append(0.1 * k)
            before = target
    assert all(b - a >= 0.5 - 1e-9 for a, b in zip(switches, switches[1:], strict=False))


@pytest.mark.parametrize("bad", [(0.6, 0.4, 0.5), (-0.1, 0.6, 0.5), (0.4, 0.6, -1.0)])
def test_thresholds_that_make_no_sense_are_an_error(bad):
    with pytest.raises(ValueError, match="gripper"):
        GripperLogic(*bad)
