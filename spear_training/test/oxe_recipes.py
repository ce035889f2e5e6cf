"""How each row's dataset writes a motion, what must come back, and what a user had to confirm."""

from dataclasses import dataclass, field

import numpy as np
from oxe_motions import (
    COMMANDS,
    EVENTS,
    OPENINGS,
    SECOND,
    SENTENCE,
    THIRD,
    angles,
    code_units,
    matrices,
    placed,
    text,
    wxyz,
)
from scipy.spatial.transform import Rotation

from spear_training.data.oxe.poses import end_effector_poses

BRIDGE_DEFAULT = np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])
CONVERTED, GOOGLE = "language_instruction", "observation/natural_language_instruction"


@dataclass
class Recipe:
    """One row.

    Attributes:
        write: motion -> features of the steps by key, without "steps/" and without pictures.
        poses: motion -> (T, 7) that the reader must give.
        openings, commands: (T,) that it must give; commands None where none are recorded.
        commanded: motion -> (T, 7) of the commanded poses, or None.
        language: key of the instruction.
        others: further sentences.
        bgr: keys of cameras that are stored with red and blue swapped.
        confirmed: what a user's table says.
        metadata: features of the episode.
        dropped: steps that are left out at the beginning.
    """

    write: object
    poses: object = lambda motion: motion.poses
    openings: object = None
    commands: object = None
    commanded: object = lambda motion: None
    language: str = CONVERTED
    others: tuple = ()
    bgr: tuple = ()
    confirmed: dict = field(default_factory=dict)
    metadata: dict = field(default_factory=dict)
    dropped: int = 0


def closing(values):
    """Return the same as closedness."""
    return 1 - np.asarray(values)


def signed(values):
    """Return -1 for open and 1 for closed."""
    return 1 - 2 * np.asarray(values)


def computed(motion):
    """Return the poses of a Franka hand by the joints."""
    return end_effector_poses(motion.joints, "hand")


def behind(motion):
    """Return the poses of all steps but the last, for commands that are reached a step later."""
    return motion.poses[:-1]


def planar(motion):
    """Return poses of the stick: x and y of the motion, height 0, pointing down."""
    fixed = np.tile([0, 1, 0, 0, 0], (len(motion.poses), 1))
    return np.hstack([motion.positions[:, :2], fixed])


def relative(motion):
    """Return the poses as they are from the first one's place and in the base's axes."""
    turns = motion.turns * motion.turns[0].inv()
    return np.hstack([motion.positions - motion.positions[0], turns.as_quat()])


def steps_in_base(motion):
    """Return translations and rotation vectors from each pose to the next, in base axes."""
    moves = np.diff(motion.positions, axis=0, append=motion.positions[-1:])
    turns = (motion.turns[1:] * motion.turns[:-1].inv()).as_rotvec()
    return moves, np.vstack([turns, np.zeros(3)])


def bridge_state(motion):
    """Return Bridge's six numbers of a pose."""
    turns = motion.turns * Rotation.from_matrix(BRIDGE_DEFAULT).inv()
    return np.hstack([motion.positions, turns.as_euler("xyz"), OPENINGS[:, None]])


def widths(values, largest=0.08):
    """Return openings as widths [m]."""
    return largest * np.asarray(values)


def roboturk(motion):
    """Return the deltas of RoboTurk."""
    moves, turns = steps_in_base(motion)
    return {
        "action/world_vector": moves,
        "action/rotation_delta": turns,
        "action/gripper_closedness_action": signed(COMMANDS),
    }


def _buds(motion):
    return {
        "observation/state": placed(
            24, c0=motion.joints, c7=widths(OPENINGS), c8=matrices(motion.poses, True)
        ),
        "action": placed(7, c6=signed(COMMANDS)),
    }


def _sailor(motion):
    return {
        "observation/state_ee": matrices(motion.poses),
        "observation/state_gripper": widths(OPENINGS, 0.077),
        "action": placed(7, c6=signed(COMMANDS)),
    }


def _roboset(motion):
    return {
        "observation/state": placed(8, c0=motion.joints, c7=0.7 * closing(OPENINGS)),
        "action": placed(8, c7=signed(COMMANDS)),
    }


def _roboset_recipe(part):
    return Recipe(
        _roboset,
        computed,
        OPENINGS,
        COMMANDS,
        confirmed={
            "gripper_opening": {"closed_at": 0.7, "open_at": 0.0},
            "subset": {"matches": f"/{part}/"},
        },
        metadata={"episode_metadata/file_path": f"/data/{part}/kitchen/7.h5"},
    )


FULL_WIDTH = {"gripper_opening": {"open_at": 0.08}}
CLOSED_AND_OPEN = {"closed_at": 1.0, "open_at": 0.0}

RECIPES = {
    "austin_buds_dataset": Recipe(
        _buds, openings=OPENINGS, commands=COMMANDS, confirmed=FULL_WIDTH
    ),
    "austin_sailor_dataset": Recipe(_sailor, openings=OPENINGS, commands=COMMANDS),
    "austin_sirius_dataset": Recipe(_sailor, openings=OPENINGS, commands=COMMANDS),
    "berkeley_autolab_ur5": Recipe(
        lambda motion: {
            "observation/robot_state": placed(15, c6=motion.poses, c13=OPENINGS < 0.5),
            "action/gripper_closedness_action": EVENTS,
        },
        openings=np.where(OPENINGS < 0.5, 0.0, 1.0),
        commands=COMMANDS,
        language=GOOGLE,
        bgr=("observation/hand_image",),
    ),
    "berkeley_cable_routing": Recipe(
        lambda motion: {"observation/robot_state": motion.poses},
        openings=np.zeros(len(OPENINGS)),
        language=GOOGLE,
        confirmed={
            "pose": {"encoding": "quaternion", "key": "observation/robot_state", "order": "xyzw"}
        },
    ),
    "berkeley_fanuc_manipulation": Recipe(
        lambda motion: {
            "observation/end_effector_state": wxyz(motion.poses),
            "observation/state": placed(13, c6=closing(OPENINGS)),
        },
        openings=OPENINGS,
        bgr=("observation/image", "observation/wrist_image"),
        confirmed={"pose": {"order": "wxyz"}, "gripper_opening": CLOSED_AND_OPEN},
    ),
    "bridge": Recipe(
        lambda motion: {
            "observation/state": bridge_state(motion),
            "action": placed(7, c6=COMMANDS),
        },
        openings=OPENINGS,
        commands=COMMANDS,
    ),
    "dlr_edan_shared_control": Recipe(
        lambda motion: {
            "observation/state": np.hstack(
                [angles(motion.poses, "zxy"), closing(OPENINGS)[:, None]]
            ),
            "action": placed(7, c6=closing(COMMANDS)),
        },
        openings=OPENINGS,
        commands=COMMANDS,
        confirmed={"gripper_opening": CLOSED_AND_OPEN},
    ),
    "droid": Recipe(
        lambda motion: {
            "observation/cartesian_position": angles(motion.poses, "xyz"),
            "observation/gripper_position": closing(OPENINGS),
            "action_dict/cartesian_position": angles(motion.commanded, "xyz"),
            "action_dict/gripper_position": closing(COMMANDS),
            "language_instruction_2": text(SECOND),
            "language_instruction_3": text(THIRD),
        },
        openings=OPENINGS,
        commands=COMMANDS,
        commanded=lambda motion: motion.commanded,
        others=(SECOND, THIRD),
        metadata={"episode_metadata/file_path": "/lab/success/2023-05-01/7/trajectory.h5"},
    ),
    "fmb": Recipe(
        lambda motion: {
            "observation/eef_pose": wxyz(motion.poses),
            "observation/joint_pos": motion.joints,
            "observation/state_gripper_pose": closing(OPENINGS),
            "action": placed(7, c6=COMMANDS),
        },
        openings=OPENINGS,
        commands=COMMANDS,
        bgr=tuple(
            f"observation/image_{view}" for view in ("side_1", "side_2", "wrist_1", "wrist_2")
        ),
        confirmed={
            "gripper_opening": CLOSED_AND_OPEN,
            "gripper_command": {"closed_at": 0.0, "open_at": 1.0},
        },
    ),
    "fractal20220817_data": Recipe(
        lambda motion: {
            "observation/base_pose_tool_reached": motion.poses,
            "observation/gripper_closed": closing(OPENINGS),
            "action/gripper_closedness_action": 0.8 * EVENTS,
        },
        openings=OPENINGS,
        commands=COMMANDS,
        language=GOOGLE,
    ),
    "furniture_bench_dataset": Recipe(
        lambda motion: {
            "observation/state": placed(
                35, c0=motion.poses, c13=motion.joints, c34=widths(OPENINGS)
            ),
            "action": placed(8, c7=signed(COMMANDS)),
        },
        openings=OPENINGS,
        commands=COMMANDS,
    ),
    "iamlab_cmu_pickup_insert": Recipe(
        lambda motion: {
            "observation/state": placed(20, c0=motion.joints, c7=OPENINGS),
            "action": placed(8, c0=motion.commanded, c7=COMMANDS),
        },
        computed,
        OPENINGS,
        COMMANDS,
        confirmed={
            "gripper_opening": {"closed_at": 0, "open_at": 1},
            "gripper_command": {"closed_at": 0, "open_at": 1},
        },
    ),
    "kuka": Recipe(
        lambda motion: {
            "observation/clip_function_input/base_pose_tool_reached": motion.poses,
            "observation/gripper_closed": closing(OPENINGS),
            "action/gripper_closedness_action": EVENTS,
        },
        openings=OPENINGS,
        commands=COMMANDS,
        language=GOOGLE,
        metadata={"success": True},
    ),
    "language_table": Recipe(
        lambda motion: {
            "observation/effector_translation": motion.positions[:, :2],
            "observation/instruction": code_units(SENTENCE),
        },
        planar,
        np.ones(len(OPENINGS)),
        language="observation/instruction",
    ),
    "nyu_franka_play_dataset": Recipe(
        lambda motion: {
            "observation/state": np.hstack([motion.joints, angles(motion.poses, "ZYX")]),
            "action": placed(15, c13=2 * COMMANDS - 1),
        },
        openings=COMMANDS,
        commands=COMMANDS,
    ),
    "roboset_kinesthetic": _roboset_recipe("kinesthetic"),
    "roboset_teleoperation": _roboset_recipe("teleoperation"),
    "roboturk": Recipe(
        roboturk,
        relative,
        COMMANDS,
        COMMANDS,
        language=GOOGLE,
        confirmed={"pose": {"rotation": "vector", "frame": "base"}},
    ),
    "stanford_hydra_dataset": Recipe(
        lambda motion: {
            "observation/state": placed(
                27, c0=wxyz(motion.poses), c10=motion.joints, c24=widths(OPENINGS)
            ),
            "action": placed(7, c6=closing(COMMANDS)),
        },
        openings=OPENINGS,
        commands=COMMANDS,
        bgr=("observation/image", "observation/wrist_image"),
        confirmed={"gripper_opening": {"closed_at": 0.0, "open_at": 0.08}},
    ),
    "taco_play": Recipe(
        lambda motion: {
            "observation/robot_obs": placed(
                15, c0=angles(motion.poses, "xyz"), c6=widths(OPENINGS), c7=motion.joints
            ),
            "action/actions": np.hstack(
                [angles(motion.commanded, "zyx"), signed(COMMANDS)[:, None]]
            ),
            "observation/structured_language_instruction": text("put_cup_on_plate"),
        },
        openings=OPENINGS,
        commands=COMMANDS,
        commanded=lambda motion: motion.commanded,
        language=GOOGLE,
        others=("put cup on plate",),
        confirmed={"gripper_command": {"closed_at": 1.0, "open_at": -1.0}},
    ),
    "toto": Recipe(
        lambda motion: {
            "observation/state": motion.joints,
            "action/open_gripper": COMMANDS.astype(bool),
        },
        computed,
        COMMANDS,
        COMMANDS,
        language=GOOGLE,
    ),
    "ucsd_kitchen_dataset": Recipe(
        lambda motion: {
            "action": placed(
                8,
                c0=angles(motion.poses, "xyz", True) * [1e3, 1e3, 1e3, 1, 1, 1],
                c6=closing(COMMANDS),
            )
        },
        behind,
        COMMANDS[1:],
        COMMANDS[1:],
        confirmed={
            "pose": {"axes": "xyz", "angle_unit": "deg", "position_unit": "mm"},
            "gripper_command": CLOSED_AND_OPEN,
        },
        dropped=1,
    ),
    "utaustin_mutex": Recipe(
        lambda motion: _buds(motion),
        openings=OPENINGS,
        commands=COMMANDS,
        bgr=("observation/image", "observation/wrist_image"),
        confirmed=FULL_WIDTH,
    ),
    "viola": Recipe(
        lambda motion: {
            "observation/ee_states": matrices(motion.poses, True),
            "observation/gripper_states": widths(OPENINGS),
            "action/gripper_closedness_action": signed(COMMANDS),
        },
        openings=OPENINGS,
        commands=COMMANDS,
        language=GOOGLE,
    ),
}
