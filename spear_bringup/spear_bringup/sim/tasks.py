"""The instructions of the table-top, and how a trial is judged. Poses in, outcome out."""

from dataclasses import dataclass

import numpy as np

from spear_bringup.sim.table_top import CUBES, DISHES, OBJECTS, Dish
from spear_policy.geometry.poses import Pose

# How much higher or lower than flat on the floor of the dish the cube may be [m]: tilted against
# the rim it still counts, held over the dish it does not.
HEIGHT_TOLERANCE_M = {"on": 0.012, "in": 0.020}


@dataclass(frozen=True)
class Task:
    """Put the cube named `cube` on or in the dish named `dish`."""

    cube: str
    dish: str

    @property
    def instruction(self) -> str:
        """What is said to the policy, for example "put the red cube on the plate"."""
        return f"put the {self.cube} {OBJECTS[self.dish].preposition} the {self.dish}"


@dataclass(frozen=True)
class TaskOutcome:
    """Whether a task is done, the two distances it was judged by [m], and the reason in words."""

    success: bool
    horizontal_m: float
    vertical_m: float
    reason: str


TASKS = tuple(Task(cube.name, dish.name) for cube in CUBES for dish in DISHES)


def task_of_seed(seed: int) -> Task:
    """The task that goes with a scene seed; neighbouring seeds differ in cube and in dish."""
    # 3 has no factor in common with the 8 tasks, so 8 seeds in a row visit each of them.
    return TASKS[(3 * seed) % len(TASKS)]


def task_from_instruction(instruction: str) -> Task:
    """The task an instruction stands for; case, blanks and a full stop at the end do not matter.

    Raises:
        ValueError: this world has no such task; the text names those it has.
    """
    said = " ".join(instruction.lower().strip().rstrip(".").split())
    for task in TASKS:
        if task.instruction == said:
            return task
    known = "; ".join(task.instruction for task in TASKS)
    raise ValueError(f"unknown instruction {instruction!r}. This world knows: {known}")


def judge(task: Task, poses: dict[str, Pose]) -> TaskOutcome:
    """Judge `task` by the poses of the objects (base frame); only its cube and dish are looked at.

    Raises:
        KeyError: one of the two has no pose.
    """
    cube, dish = OBJECTS[task.cube], OBJECTS[task.dish]
    offset = poses[task.cube].position_m - poses[task.dish].position_m
    horizontal = float(np.linalg.norm(offset[:2]))
    resting = dish.floor_height_m - dish.height_m / 2 + cube.side_m / 2
    vertical = float(offset[2] - resting)
    reason = _reason(task, dish, horizontal, vertical)
    return TaskOutcome(
        not reason, horizontal, vertical, reason or f"the {task.cube} is in its place"
    )


def _reason(task: Task, dish: Dish, horizontal_m: float, vertical_m: float) -> str:
    if horizontal_m > dish.rim_radius_m:
        where = f"{100 * horizontal_m:.1f} cm beside the middle of the {task.dish}"
    elif abs(vertical_m) > HEIGHT_TOLERANCE_M[dish.preposition]:
        side = "above" if vertical_m > 0 else "below"
        place = f"its place {dish.preposition} the {task.dish}"
        where = f"{100 * abs(vertical_m):.1f} cm {side} {place}"
    else:
        return ""
    return f"the {task.cube} is {where}"
