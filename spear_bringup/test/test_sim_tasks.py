"""The instructions of the world and the verdicts on them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spear_bringup.sim.table_top import OBJECTS, fixed_layout, layout
from spear_bringup.sim.tasks import TASKS, Task, judge, task_from_instruction, task_of_seed
from spear_policy.geometry.poses import Pose

UPRIGHT = (0.0, 0.0, 0.0, 1.0)


def resting(task, offset_m=(0.0, 0.0, 0.0)):
    """Poses with the cube of `task` flat on the floor of its dish, moved by `offset_m`."""
    poses = fixed_layout()
    dish, cube = OBJECTS[task.dish], OBJECTS[task.cube]
    x, y, _ = poses[task.dish].position_m
    z = dish.floor_height_m + cube.side_m / 2
    dx, dy, dz = offset_m
    poses[task.cube] = Pose((x + dx, y + dy, z + dz), UPRIGHT)
    return poses


def test_instructions_read_as_a_person_says_them():
    said = {task.instruction for task in TASKS}
    assert "put the red cube on the plate" in said and "put the green cube in the bowl" in said
    assert len(said) == 8


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.instruction)
def test_a_cube_at_rest_in_its_place_is_a_success(task):
    assert task_from_instruction(task.instruction) == task
    assert judge(task, resting(task)).success


@given(seed=st.integers(0, 10_000), task=st.sampled_from(TASKS))
def test_no_scene_starts_with_its_task_done(seed, task):
    assert not judge(task, layout("random", seed)).success


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.instruction)
def test_a_cube_held_above_or_lying_beside_is_a_failure_with_its_reason(task):
    above = judge(task, resting(task, (0, 0, 0.03)))
    assert not above.success and "3.0 cm above its place" in above.reason
    beside = judge(task, resting(task, (0.10, 0, 0)))
    assert not beside.success and "10.0 cm beside the middle" in beside.reason


def test_other_cubes_do_not_matter():
    task = Task("red cube", "plate")
    poses = resting(task)
    poses["blue cube"] = Pose((0.0, 0.5, 0.02), UPRIGHT)
    assert judge(task, poses).success


def test_case_and_blanks_of_an_instruction_do_not_matter():
    assert task_from_instruction(" Put the  RED cube on the plate. ") == Task("red cube", "plate")


def test_an_unknown_instruction_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="put the red cube on the plate"):
        task_from_instruction("fold the towel")


def test_eight_seeds_in_a_row_ask_for_eight_different_tasks():
    for first in range(20):
        assert {task_of_seed(seed) for seed in range(first, first + 8)} == set(TASKS)
