"""What becomes of an instruction: every end, every hold, every refusal."""

import pytest

from spear_msgs.action import RunInstruction
from spear_msgs.msg import PolicyStatus
from spear_policy.inference.instruction_session import Outcome, Session, State, StepSchedule


class Goal:
    """A door that remembers how it was told."""

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
    session.begin("one", 11.0, door=first)
    session.chunk_published(11.5, 12.5, final=False)
    session.begin("two", 13.0, door=second)
    assert session.holds == ["a new instruction"] * 2
    (ending,) = first.endings
    assert (ending.outcome, ending.instruction_id, ending.chunks) == (Outcome.REPLACED, 1, 1)
    assert ending.elapsed_s == pytest.approx(2.0)
    assert not second.endings
    assert (session.instruction, session.instruction_id, session.chunks) == ("two", 2, 0)
    assert session.state is State.RUNNING and session.in_force and session.fresh


def test_done_comes_when_the_last_steps_are_due_and_without_a_hold(session):
    goal = Goal()
    session.begin("one", 11.0, door=goal)
    session.chunk_published(12.0, 13.0, final=True)
    assert not session.in_force and session.pursued
    session.tick(12.9)
    assert session.state is State.RUNNING and not goal.endings
    session.tick(13.0)
    assert session.state is State.DONE and goal.outcome is Outcome.DONE
    assert len(session.holds) == 1


def test_time_out_is_on_the_node_clock_and_holds(session):
    goal = Goal()
    session.begin("one", 11.0, timeout_s=2.0, door=goal)
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
    session.begin("one", 11.0, door=goal)
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
    session.begin("one", 11.0, door=goal)
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
    session.begin("one", 11.0, door=goal)
    session.fail("the engine failed: boom")
    assert goal.outcome is Outcome.FAULT
    assert (session.state, session.in_force) == (State.BLOCKED, False)
    session.begin("two", 12.0)
    assert session.state is State.RUNNING


def test_a_clock_that_goes_back_ends_the_instruction(session):
    goal = Goal()
    session.begin("one", 11.0, door=goal)
    session.tick(12.0)
    session.tick(3.0)
    assert goal.outcome is Outcome.FAULT and "clock went back by 9.00 s" in session.text


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
