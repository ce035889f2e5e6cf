"""Forward kinematics of the Franka, against another implementation of another description."""

from importlib.resources import files

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spear_policy.geometry import quaternions as quat
from spear_policy.inference.episode import EpisodeError
from spear_training.data.oxe.poses import HIGHEST_RAD, LOWEST_RAD, end_effector_poses

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
