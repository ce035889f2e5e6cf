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
    return core.on_chunk(
        chunk,
        hold=hold,
        now_s=now_s,
        received_age_s=received_age_s,
        measured=pose,
        commanded=pose,
        history=history or resting_history(),
    )


def tick(core, now_s, pose=DOWN, **kwargs):
    return core.tick(now_s, measured=pose, commanded=pose, moving=True, **kwargs)


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
    decision = give(make_core(max_linear_speed_m_s=0.1), straight_chunk([0.2, 0, 0]))
    assert_verdict(decision, Verdict.CLAMPED, Reason.LINEAR_SPEED)
    assert decision.gate.time_scale > 1.9
    assert np.array_equal(decision.path.positions_m, asked.positions_m)
    assert np.sum(decision.path.durations_s) > 1.9 * np.sum(asked.durations_s)


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
    assert tick(core, 10.95) is None
    decision = tick(core, 11.01)
    assert_verdict(decision, Verdict.HELD, Reason.CHUNK_TIMEOUT)
    assert decision.stop
    assert tick(core, 11.5) is None  # said once


def test_a_timeout_never_comes_before_chunk_timeout_s_from_receipt():
    core = make_core()
    give(core, straight_chunk([0.01, 0, 0], stamp_s=9.21), now_s=10.0)  # last step due at 10.21
    assert tick(core, 10.25) is None
    assert tick(core, 10.31).gate.reason is Reason.CHUNK_TIMEOUT


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


def test_the_monitor_latches_when_the_robot_itself_goes_too_fast():
    core = make_core()
    decision = None
    for i in range(60):
        pose = Pose(DOWN.position_m + [0.006 * i, 0, 0], DOWN.orientation_xyzw)  # 0.6 m/s
        decision = decision or tick(core, 10.0 + 0.01 * i, pose)
    assert_verdict(decision, Verdict.STOPPED, Reason.LIMIT_MONITOR)


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
