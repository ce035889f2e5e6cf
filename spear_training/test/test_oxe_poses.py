"""Every way to write a pose leads back to it; numbers that mean none are refused."""

from importlib.resources import files

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from oxe_motions import make_motion, matrices, wxyz
from scipy.spatial.transform import Rotation

from spear_policy.geometry import quaternions as quat
from spear_policy.inference.episode import EpisodeError
from spear_training.data.oxe.poses import (
    HIGHEST_RAD,
    LOWEST_RAD,
    decide,
    end_effector_poses,
    read_poses,
    wander_deg,
)
from spear_training.data.oxe.table import (
    Columns,
    EulerPose,
    JointPose,
    MatrixPose,
    PlanarPose,
    QuaternionPose,
    SummedDeltas,
)
from spear_training.data.reader import DataFileError

TAIT_BRYAN = [a + b + c for a, b, c in ("xyz", "xzy", "yxz", "yzx", "zxy", "zyx")]
DEFAULT = Rotation.from_matrix([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])

coordinate = st.floats(-2, 2)
part = st.floats(-1, 1)
quaternion = st.lists(part, min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1)
pose = st.tuples(st.lists(coordinate, min_size=3, max_size=3), quaternion).map(
    lambda both: np.concatenate([both[0], np.array(both[1]) / np.linalg.norm(both[1])])
)
sequence = st.lists(pose, min_size=1, max_size=4).map(np.array)


def assert_poses(got, expected, places=1e-6):
    """Compare poses (T, 7), whatever the signs of their quaternions."""
    assert np.abs(got[:, :3] - expected[:, :3]).max() < places
    assert quat.angle(got[:, 3:], expected[:, 3:]).max() < places


@given(sequence, st.sampled_from(["xyzw", "wxyz"]), st.integers(0, 3))
def test_quaternions_come_back(poses, order, first):
    written = poses if order == "xyzw" else wxyz(poses)
    steps = {"state": np.hstack([np.full((len(poses), first), 9.0), written])}
    rule = QuaternionPose(key="state", first_column=first, order=order)
    assert_poses(read_poses(rule, steps), poses)


@given(sequence, st.booleans(), st.booleans())
def test_matrices_come_back_in_either_order(poses, column_major, stated):
    order = "column_major" if column_major else "row_major"
    poses[0, 0] += 3.0  # off the origin, where both orders would fit
    rule = MatrixPose(key="state", order=order if stated else "detect")
    assert_poses(read_poses(rule, {"state": matrices(poses, column_major)}), poses)


@pytest.mark.filterwarnings("ignore:Gimbal lock")
@given(sequence, st.sampled_from(TAIT_BRYAN), st.booleans(), st.booleans(), st.booleans())
def test_euler_angles_come_back_in_every_convention(poses, axes, turning, degrees, default):
    axes = axes.upper() if turning else axes
    turns = Rotation.from_quat(poses[:, 3:])
    stored = turns * DEFAULT.inv() if default else turns
    angles = stored.as_euler(axes, degrees)
    rule = EulerPose(
        key="state",
        axes=axes,
        angle_unit="deg" if degrees else "rad",
        position_unit="mm" if degrees else "m",
        default_rotation=tuple(DEFAULT.as_matrix().ravel()) if default else None,
    )
    lengths = poses[:, :3] * (1e3 if degrees else 1.0)
    assert_poses(read_poses(rule, {"state": np.hstack([lengths, angles])}), poses)


@given(sequence, st.sampled_from(["vector", "xyz", "XYZ", "ZYX"]), st.booleans())
def test_summed_deltas_are_the_poses_from_the_first_on(poses, rotation, base):
    positions, turns = poses[:, :3], Rotation.from_quat(poses[:, 3:])
    # The sum starts at the identity, where the end effector's axes are the base's.
    start, moves = turns[0], np.diff(positions, axis=0)
    if base:
        steps, moved = turns[1:] * turns[:-1].inv(), positions - positions[0]
        turned = turns * start.inv()
    else:
        steps, moves = turns[:-1].inv() * turns[1:], turns[:-1].inv().apply(moves)
        moved, turned = start.inv().apply(positions - positions[0]), start.inv() * turns
    angles = steps.as_rotvec() if rotation == "vector" else steps.as_euler(rotation)
    steps = {
        "move": np.vstack([moves, [9.0, 9.0, 9.0]]),  # the last one leads out of the episode
        "turn": np.vstack([angles, [1.0, 1.0, 1.0]]),
    }
    frame = "base" if base else "end_effector"
    rule = SummedDeltas(translation_key="move", rotation_key="turn", rotation=rotation, frame=frame)
    assert_poses(read_poses(rule, steps), np.hstack([moved, turned.as_quat()]))


def test_a_plane_is_filled_up_with_constants():
    rule = PlanarPose(key="xy", z_m=0.2, orientation_xyzw=(1.0, 0.0, 0.0, 0.0))
    got = read_poses(rule, {"xy": np.array([[0.1, 0.2], [0.3, 0.4]], np.float32)})
    assert np.allclose(got, [[0.1, 0.2, 0.2, 1, 0, 0, 0], [0.3, 0.4, 0.2, 1, 0, 0, 0]])


def test_rounding_of_a_quaternion_is_removed_and_more_is_refused():
    poses = make_motion().poses
    rule = QuaternionPose(key="observation/pose", order="xyzw")
    rounded = poses * [1, 1, 1, *[1.0005] * 4]
    assert_poses(read_poses(rule, {"observation/pose": rounded}), poses)
    for factor in (0.0, 1.01):
        poses[3, 3:] *= factor
        with pytest.raises(EpisodeError, match=r"observation/pose\[3\] has a quaternion of length"):
            read_poses(rule, {"observation/pose": poses})


RULES = [
    QuaternionPose(key="state", order="xyzw"),
    EulerPose(key="state", axes="xyz"),
    JointPose(key="state"),
    PlanarPose(key="state", z_m=0.0, orientation_xyzw=(0, 0, 0, 1)),
    MatrixPose(key="state", order="row_major"),
    SummedDeltas(translation_key="state", rotation_key="state", rotation="xyz", frame="base"),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_names_its_step(rule, value):
    values = np.zeros((4, 16))
    values[2, 1] = value
    with pytest.raises(EpisodeError, match=r"state\[2\] has a number that is not finite"):
        read_poses(rule, {"state": values})


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_too_few_columns_are_named(rule):
    with pytest.raises(EpisodeError, match="state has 1 numbers from column 0 on, not"):
        read_poses(rule, {"state": np.zeros((4, 1))})


def test_matrices_that_are_none_are_refused():
    good = matrices(make_motion().poses)
    rule = MatrixPose(key="state", order="detect")
    scaled, mirrored, neither = good.copy(), good.copy(), good.copy()
    scaled[1, :3] *= 1.1
    mirrored[1, [0, 4, 8]] *= -1
    neither[1, 12:] = 0.5
    for values in (scaled, mirrored):
        with pytest.raises(EpisodeError, match=r"state\[1\] has a matrix that is no rotation"):
            read_poses(rule, {"state": values})
    with pytest.raises(EpisodeError, match="neither the last row nor the last column"):
        read_poses(rule, {"state": neither})
    with pytest.raises(EpisodeError, match="matrix is not written column major"):
        read_poses(MatrixPose(key="state", order="column_major"), {"state": good})


def test_a_hand_at_the_origin_does_not_tell_the_order_of_a_matrix():
    poses = make_motion().poses
    poses[:, :3] = 0
    with pytest.raises(EpisodeError, match="state its order in the table"):
        read_poses(MatrixPose(key="state", order="detect"), {"state": matrices(poses)})


def episodes_of(write, count=4):
    """Return the numbers of some episodes, their poses written by a function."""
    motions = [make_motion(number) for number in range(count)]
    return [{"joints": motion.joints, "pose": write(motion)} for motion in motions]


@pytest.mark.parametrize("order", ["xyzw", "wxyz"])
def test_joint_angles_tell_the_order_of_a_quaternion(order):
    rule = QuaternionPose(key="pose", order="detect", joints=Columns(key="joints"))
    write = wxyz if order == "wxyz" else np.array
    found = decide(rule, episodes_of(lambda motion: write(motion.poses)), "row fmb: pose")
    assert found.order == order


@pytest.mark.parametrize("axes", ["xyz", "XYZ", "zyx", "ZYX"])
def test_joint_angles_tell_the_axes_of_euler_angles(axes):
    rule = EulerPose(key="pose", axes="detect", joints=Columns(key="joints"))
    episodes = episodes_of(
        lambda motion: np.hstack([motion.positions, motion.turns.as_euler(axes)])
    )
    assert decide(rule, episodes, "row taco_play: pose").axes == axes
    worst = wander_deg(rule, episodes[0])
    assert worst[axes] < 1e-3
    assert min(degrees for other, degrees in worst.items() if other != axes) > 8


def test_an_order_is_not_guessed():
    rule = QuaternionPose(key="pose", order="detect", joints=Columns(key="joints"))
    still = episodes_of(lambda motion: motion.poses)
    for steps in still:
        steps["joints"], steps["pose"] = steps["joints"][[0, 0]], steps["pose"][[0, 0]]
    with pytest.raises(DataFileError, match="fmb: pose.order: .* turned too little .* xyzw 0.0"):
        decide(rule, still, "row fmb: pose")
    foreign = episodes_of(lambda motion: motion.poses[::-1])
    with pytest.raises(DataFileError, match="none of the orders fits .* --table"):
        decide(rule, foreign, "row fmb: pose")


def test_a_damaged_episode_does_not_keep_the_others_from_telling():
    rule = QuaternionPose(key="pose", order="detect", joints=Columns(key="joints"))
    episodes = episodes_of(lambda motion: motion.poses)
    episodes[0]["pose"] = episodes[0]["pose"] * np.nan
    assert decide(rule, episodes, "row fmb: pose").order == "xyzw"


# Forward kinematics of the Franka, against another implementation -----------------------------

FRAMES = {"flange": "fr3_link8", "hand": "fr3_hand_tcp"}


@pytest.fixture(scope="module")
def urdf_poses():
    """Return a function: joints (T, 7) and a frame's name to poses (T, 7), by pinocchio."""
    pin = pytest.importorskip("pinocchio")
    pytest.importorskip("franky_sim")
    model = pin.buildModelFromUrdf(str(files("franky_sim") / "assets" / "fr3.urdf"))
    data = model.createData()

    def poses(joints, frame):
        found = []
        for q in joints:
            full = pin.neutral(model)
            full[:7] = q
            pin.framesForwardKinematics(model, data, full)
            found.append(pin.SE3ToXYZQUAT(data.oMf[model.getFrameId(frame)]))
        return np.array(found)

    return poses


@pytest.mark.parametrize("end_effector", FRAMES)
def test_poses_are_those_of_the_urdf(urdf_poses, end_effector):
    joints = np.random.default_rng(1).uniform(LOWEST_RAD, HIGHEST_RAD, (200, 7))
    ours = end_effector_poses(joints, end_effector)
    theirs = urdf_poses(joints, FRAMES[end_effector])
    assert np.abs(ours[:, :3] - theirs[:, :3]).max() < 1e-5
    assert quat.angle(ours[:, 3:], theirs[:, 3:]).max() < 1e-4


def test_the_ready_pose_points_down_in_front_of_the_robot():
    ready = [[0, -np.pi / 4, 0, -3 * np.pi / 4, 0, np.pi / 2, np.pi / 4]]
    (pose,) = end_effector_poses(ready)
    assert np.allclose(pose[:3], [0.3069, 0.0, 0.4869], atol=1e-3)
    assert np.allclose(Rotation.from_quat(pose[3:]).apply([0, 0, 1]), [0, 0, -1], atol=1e-9)
    assert np.allclose(Rotation.from_quat(pose[3:]).apply([1, 0, 0]), [1, 0, 0], atol=1e-9)


@pytest.mark.parametrize(
    ("value", "text"), [(np.nan, "joint 2 of step 1 is nan"), (95.0, "joint 2 of step 1 is 95.000")]
)
def test_angles_that_no_franka_has_are_named(value, text):
    joints = np.tile([0, 0, 0, -1.5, 0, 1.5, 0], (3, 1)).astype(float)
    joints[1, 1] = value
    with pytest.raises(EpisodeError, match=text):
        end_effector_poses(joints)


def test_a_wrong_shape_and_an_unknown_end_effector_are_refused():
    with pytest.raises(ValueError, match=r"shape \(T, 7\)"):
        end_effector_poses(np.zeros((3, 8)))
    with pytest.raises(ValueError, match="end effector 'robotiq'"):
        end_effector_poses([[0, 0, 0, -1.5, 0, 1.5, 0]], "robotiq")
