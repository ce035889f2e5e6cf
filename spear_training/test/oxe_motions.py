"""One motion, written the way that each dataset of the mixture writes it.

The forms are made with scipy alone, apart from what the reader uses.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from spear_training.data.oxe.poses import end_effector_poses

STEPS = 10
SENTENCE, SECOND, THIRD = "put the cup on the plate", "cup onto plate", "move the cup"
OPENINGS = np.array([1, 1, 1, 0.6, 0.3, 0.3, 0.3, 0.7, 1, 1])
COMMANDS = np.array([1, 1, 0, 0, 0, 0, 1, 1, 1, 1], float)
EVENTS = np.array([0, 0, 1, 0, 0, 0, -1, 0, 0, 0], float)
MOUNT = Rotation.from_euler("xyz", [0.2, -0.4, 1.0])
# Told to be a little ahead of where it is.
AHEAD = Rotation.from_rotvec([0.01, -0.02, 0.015])


@dataclass
class Motion:
    """Joint angles of a Franka and the poses (T, 7) of a tool that is mounted on its flange."""

    joints: np.ndarray
    poses: np.ndarray
    record: dict = field(default_factory=dict)

    @property
    def turns(self):
        """Orientations."""
        return Rotation.from_quat(self.poses[:, 3:])

    @property
    def positions(self):
        """Positions (T, 3) [m]."""
        return self.poses[:, :3]

    @property
    def commanded(self):
        """Poses (T, 7) that the tool was told to have."""
        return np.hstack([self.positions + 0.01, (self.turns * AHEAD).as_quat()])


def make_motion(number=0):
    """Return a motion that turns the hand about all its axes by about 60 degrees."""
    share = np.linspace(0, 1, STEPS)[:, None]
    ready = np.array([0, -0.8, 0, -2.4, 0, 1.6, 0.8])
    joints = ready + share * np.array([0.5, 0.4, -0.5, 0.3, 1.0, 0.7, -0.9]) + 0.02 * number
    flange = end_effector_poses(joints, "flange")
    turns = Rotation.from_quat(flange[:, 3:])
    positions = flange[:, :3] + turns.apply([0, 0, 0.15])
    return Motion(joints, np.hstack([positions, (turns * MOUNT).as_quat()]))


def matrices(poses, column_major=False):
    """Return (T, 16) homogeneous matrices."""
    result = np.tile(np.eye(4), (len(poses), 1, 1))
    result[:, :3, :3] = Rotation.from_quat(poses[:, 3:]).as_matrix()
    result[:, :3, 3] = poses[:, :3]
    return (result.transpose(0, 2, 1) if column_major else result).reshape(-1, 16)


def angles(poses, axes, degrees=False):
    """Return (T, 6) positions and Euler angles."""
    turns = Rotation.from_quat(poses[:, 3:])
    return np.hstack([poses[:, :3], turns.as_euler(axes, degrees)])


def wxyz(poses):
    """Return (T, 7) with the quaternion's w first."""
    return poses[:, [0, 1, 2, 6, 3, 4, 5]]


def placed(width, **columns):
    """Return (T, width) noise with some columns given: c8=(T, n) from column 8 on."""
    values = np.random.default_rng(width).uniform(-0.5, 0.5, (STEPS, width))
    for name, numbers in columns.items():
        first = int(name[1:])
        numbers = np.asarray(numbers).reshape(STEPS, -1)
        values[:, first : first + numbers.shape[1]] = numbers
    return values


def text(sentence):
    """Return a text of every step."""
    return [sentence.encode()] * STEPS


def code_units(sentence):
    """Return (T, 512) integers."""
    units = np.zeros((STEPS, 512), np.int32)
    units[:, : len(sentence.encode())] = list(sentence.encode())
    return units
