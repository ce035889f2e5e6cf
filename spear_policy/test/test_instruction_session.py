"""What becomes of an instruction: every end, every hold, every refusal; and when what is due."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_msgs.action import RunInstruction
from spear_msgs.msg import PolicyStatus
from spear_policy.inference.instruction_session import Outcome, Pace, Session, State, StepSchedule


class Goal:
    """A requester that remembers how it ended."""

    def __init__(self):
        self.endings = []

    def end(self, ending):
        self.endings.append(ending)

    @property
    def outcome(self):
        (ending,) = self.endings
        return ending.outcome


@pytest.fixture
def session():
    """A session that is active at 10 s and lists its holds."""
    holds = []
    session = Session(holds.append, max_characters=20, blocked_limit_s=5.0)
    session.holds = holds
    session.activate(10.0)
    return session


def test_the_numbers_are_those_of_the_messages():
    for state in State:
        assert getattr(PolicyStatus, f"STATE_{state.name}") == state
    for outcome in Outcome:
        assert getattr(RunInstruction.Result, f"OUTCOME_{outcome.name}") == outcome


def test_a_new_instruction_holds_first_and_replaces_the_one_before(session):
    first, second = Goal(), Goal()
    session.begin("one", 11.0, requester=first)
    session.chunk_published(11.5, 12.5, final=False)
    session.begin("two", 13.0, requester=second)
    assert session.holds == ["a new instruction"] * 2
    (ending,) = first.endings
    assert (ending.outcome, ending.instruction_id, ending.chunks) == (Outcome.REPLACED, 1, 1)
    assert ending.elapsed_s == pytest.approx(2.0)
    assert not second.endings
    assert (session.instruction, session.instruction_id, session.chunks) == ("two", 2, 0)
    assert session.state is State.RUNNING and session.in_force and session.fresh


def test_done_comes_when_the_last_steps_are_due_and_without_a_hold(session):
    goal = Goal()
    session.begin("one", 11.0, requester=goal)
    session.chunk_published(12.0, 13.0, final=True)
    assert not session.in_force and session.pursued
    session.tick(12.9)
    assert session.state is State.RUNNING and not goal.endings
    session.tick(13.0)
    assert session.state is State.DONE and goal.outcome is Outcome.DONE
    assert len(session.holds) == 1


def test_time_out_is_on_the_node_clock_and_holds(session):
    goal = Goal()
    session.begin("one", 11.0, timeout_s=2.0, requester=goal)
    session.tick(12.9)
    assert not goal.endings
    session.tick(13.1)
    assert goal.outcome is Outcome.TIMEOUT
    assert session.state is State.WAITING and len(session.holds) == 2


def test_a_timeout_of_zero_is_no_limit(session):
    session.begin("one", 11.0)
    session.tick(1e6)
    assert session.in_force


def test_a_stop_holds_and_waits(session):
    goal = Goal()
    session.begin("one", 11.0, requester=goal)
    session.stop(Outcome.CANCELLED, "cancelled")
    assert goal.outcome is Outcome.CANCELLED
    assert (session.state, session.instruction, session.in_force) == (State.WAITING, "", False)
    assert session.holds[-1] == "cancelled"


def test_a_blocked_input_holds_once_and_resumes_by_itself(session):
    session.begin("one", 11.0)
    session.chunk_published(11.5, 12.5, final=False)
    for now_s in (12.0, 12.2, 12.4):
        session.block("no image on /external", now_s)
    assert session.state is State.BLOCKED and session.text == "no image on /external"
    assert session.holds == ["a new instruction", "no image on /external"]
    session.chunk_published(12.6, 13.6, final=False)
    assert session.state is State.RUNNING
    session.block("again", 13.0)
    assert len(session.holds) == 3


def test_a_goal_that_stays_blocked_ends_as_a_fault_but_a_topic_instruction_waits(session):
    goal = Goal()
    session.begin("one", 11.0, requester=goal)
    session.block("no image", 12.0)
    session.tick(16.9)
    assert not goal.endings
    session.tick(17.1)
    assert goal.outcome is Outcome.FAULT and "no image" in goal.endings[0].text
    session.begin("two", 20.0)
    session.block("no image", 21.0)
    session.tick(100.0)
    assert session.in_force


def test_a_failed_engine_stays_blocked_until_another_instruction(session):
    goal = Goal()
    session.begin("one", 11.0, requester=goal)
    session.fail("the engine failed: boom")
    assert goal.outcome is Outcome.FAULT
    assert (session.state, session.in_force) == (State.BLOCKED, False)
    session.begin("two", 12.0)
    assert session.state is State.RUNNING


def test_deactivation_holds_even_without_an_instruction_but_only_when_active(session):
    session.deactivate()
    assert session.holds == ["the policy node was deactivated"]
    session.deactivate()
    assert len(session.holds) == 1 and session.state is State.INACTIVE


def test_unusable_sentences_are_refused_and_disturb_nothing(session):
    session.begin("one", 11.0)
    assert "has 10000 characters, the limit is 20" in session.refusal("x" * 10_000)
    assert "control characters" in session.refusal("put\nit")
    assert session.refusal("lege das Stück ab") == ""
    assert session.instruction == "one" and session.in_force


def test_steps_are_due_in_order_and_a_newer_chunk_replaces_the_rest():
    schedule = StepSchedule()
    schedule.replace([1.0, 1.2, 1.4], ["a", "b", "c"], now_s=1.1)
    assert schedule.due(1.15) == []
    assert schedule.due(1.3) == ["b"]
    schedule.replace([1.3, 1.5], ["d", "e"], now_s=1.3)
    assert schedule.due(2.0) == ["e"]
    assert schedule.due(3.0) == []
    schedule.replace([4.0], ["f"], now_s=3.0)
    schedule.clear()
    assert schedule.due(9.0) == []


# The pace of inferences ---------------------------------------------------------------------------


PERIOD_S = 0.2
ROUNDING_S = 1e-9


def begun(pace, asked_s):
    """When inferences begin, for a worker that asks at these times and begins at once."""
    times = []
    for now_s in asked_s:
        if pace.due(now_s):
            pace.begun(now_s)
            times.append(now_s)
    return times


def started(now_s=10.0):
    pace = Pace(PERIOD_S)
    pace.at_once(now_s)
    return pace


def test_it_keeps_its_period_without_drift_although_it_is_asked_a_little_late():
    times = begun(started(), [10.0 + 0.017 * tick for tick in range(200)])
    assert len(times) == 17  # in 3.4 s
    assert all(0 <= t - (10.0 + PERIOD_S * n) < 0.017 for n, t in enumerate(times))


def test_one_that_begins_late_does_not_delay_those_after_it():
    assert begun(started(), [10.0, 10.35, 10.39, 10.4, 10.6]) == [10.0, 10.35, 10.4, 10.6]


def test_nothing_is_made_up_for_after_a_pause():
    pace = started()
    asked_s = [15.0 + 0.01 * tick for tick in range(100)]
    times = begun(pace, asked_s)
    assert times == pytest.approx([15.0, 15.2, 15.4, 15.6, 15.8], abs=0.011)


def test_a_new_instruction_is_due_at_once():
    pace = started()
    pace.begun(10.0)
    assert not pace.due(10.1)
    pace.at_once(10.1)
    assert pace.due(10.1)


def test_a_clock_that_was_set_back_does_not_silence_it():
    pace = started()
    pace.begun(10.0)
    assert pace.due(3.0)
    pace.begun(3.0)
    assert not pace.due(3.1) and pace.due(3.2)


def test_a_clock_that_was_set_back_a_little_costs_two_periods_at_most():
    for back_s in (0.01, 0.1, 0.19, 0.25, 0.4):
        pace = started()
        pace.begun(10.0)
        now_s = 10.0 - back_s
        times = begun(pace, [now_s + 0.01 * tick for tick in range(60)])
        assert times[0] - now_s <= 2 * PERIOD_S + 0.011


@settings(max_examples=300, deadline=None)
@given(waits_s=st.lists(st.floats(0.0, 1.5), max_size=60))
def test_the_nth_never_begins_before_n_periods_and_no_window_holds_a_burst(waits_s):
    asked_s, now_s = [], 10.0
    for wait_s in waits_s:
        now_s += wait_s
        asked_s.append(now_s)
    times = begun(started(), asked_s)
    for n, time_s in enumerate(times):
        assert time_s >= 10.0 + n * PERIOD_S - ROUNDING_S
    # Between any two of them, too: only the first may have been late, by less than a period.
    for first, sooner_s in enumerate(times):
        for last in range(first + 1, len(times)):
            assert times[last] - sooner_s > (last - first - 1) * PERIOD_S - ROUNDING_S


@settings(max_examples=300, deadline=None)
@given(late_s=st.lists(st.floats(0.0, 0.19), min_size=1, max_size=60))
def test_lateness_below_a_period_never_adds_up(late_s):
    pace = started()
    for n, late in enumerate(late_s):
        due_s = 10.0 + n * PERIOD_S
        assert not pace.due(due_s - 0.001) or n == 0
        assert pace.due(due_s + late + ROUNDING_S)
        pace.begun(due_s + late + ROUNDING_S)
