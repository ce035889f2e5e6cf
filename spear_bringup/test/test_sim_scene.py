"""The furnished scene: it compiles, things rest on it, cameras see what is there."""

import mujoco
import numpy as np
import pytest
from franky_sim.mujoco_simulator import MujocoSimulator

from spear_bringup.sim import table_top as cameras
from spear_bringup.sim.franka_robot import JOINT_NAMES, READY_RAD, add_franka
from spear_bringup.sim.rendering import SceneRenderer, thinned
from spear_bringup.sim.table_top import BOWL, CUBES, OBJECTS, PLATE, fixed_layout, furnish
from spear_bringup.sim.world import sized
from spear_policy.geometry.quaternions import wxyz_from_xyzw

VIEWS = (cameras.EXTERNAL, cameras.WRIST)


def project(view, optical_axes, position_m, point_m):
    """Pixel (u, v) of a world point seen from a camera at `position_m` with `optical_axes`."""
    in_camera = optical_axes.T @ (point_m - position_m)
    assert in_camera[2] > 0, "the point is behind the camera"
    return (view.intrinsics @ in_camera)[:2] / in_camera[2]


def camera_pose(data, view):
    """Position (3,) and optical axes (3, 3; x right, y down, z forward) of a view in the world."""
    camera = data.camera(view.name)
    return camera.xpos.copy(), camera.xmat.reshape(3, 3) @ np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope="module")
def simulator():
    sim = MujocoSimulator()
    sim.init()
    add_franka(sim)
    furnish(sim.scene, sim.worldbody)
    sim.start()
    return sim


@pytest.fixture
def scene(simulator):
    """Model and data with the fixed layout."""
    model, data = simulator.model, simulator.data
    for name, pose in fixed_layout().items():
        put(data, name, pose.position_m, pose.orientation_xyzw)
    mujoco.mj_forward(model, data)
    return model, data


def put(data, name, position_m, orientation_xyzw=(0.0, 0.0, 0.0, 1.0)):
    data.joint(name).qpos = np.concatenate([position_m, wxyz_from_xyzw(orientation_xyzw)])
    data.joint(name).qvel = 0.0


def let_pass(model, data, seconds):
    """Step with the arm held by its own weight's torques."""
    for _ in range(round(seconds / model.opt.timestep)):
        data.qfrc_applied[:7] = data.qfrc_bias[:7]
        mujoco.mj_step(model, data)


def test_everything_stays_where_the_layout_puts_it(scene):
    model, data = scene
    let_pass(model, data, 1.0)
    for name, pose in fixed_layout().items():
        assert data.body(name).xpos == pytest.approx(pose.position_m, abs=5e-4), name


@pytest.mark.parametrize("dish", [PLATE, BOWL], ids=lambda dish: dish.name)
def test_a_cube_dropped_on_a_dish_comes_to_rest_on_its_floor(scene, dish):
    model, data = scene
    cube = CUBES[0]
    x, y, _ = data.body(dish.name).xpos
    put(data, cube.name, (x + 0.01, y, dish.height_m + 0.03))
    let_pass(model, data, 1.0)
    resting = dish.floor_height_m + cube.side_m / 2
    assert data.body(cube.name).xpos[2] == pytest.approx(resting, abs=1e-3)
    assert np.linalg.norm(data.joint(cube.name).qvel) < 5e-3


def test_the_wall_of_the_bowl_holds_a_cube_inside(scene):
    model, data = scene
    x, y, _ = data.body(BOWL.name).xpos
    put(data, "red cube", (x, y, BOWL.floor_height_m + 0.021))
    mujoco.mj_forward(model, data)
    data.joint("red cube").qvel[0] = 0.5
    let_pass(model, data, 1.0)
    away = data.body("red cube").xpos - data.body(BOWL.name).xpos
    assert np.linalg.norm(away[:2]) < BOWL.rim_radius_m


def test_the_robot_is_ready_above_the_table_with_its_fingers_open(simulator):
    names = [simulator.model.joint(i).name for i in range(7)]
    assert [name.removeprefix("robot0_") for name in names] == list(JOINT_NAMES)
    low, high = simulator.model.jnt_range[:7].T
    assert np.all(np.array(READY_RAD) > low + 0.4) and np.all(np.array(READY_RAD) < high - 0.4)
    robot = simulator.robots[0]
    pose = robot.kinematics(np.array(READY_RAD))
    assert pose.translation == pytest.approx([0.45, 0.0, 0.38], abs=1e-3)
    assert pose.rotation == pytest.approx(np.diag([1.0, -1.0, -1.0]), abs=1e-3)
    assert robot.hand_width == pytest.approx(0.08, abs=1e-3)


def test_a_scene_without_the_hand_is_refused_in_words():
    sim = MujocoSimulator()
    with pytest.raises(ValueError, match="add the robot before the table-top"):
        furnish(sim.scene, sim.worldbody)


def test_thinned_meshes_keep_their_shape_with_a_fraction_of_the_triangles(scene):
    model, _ = scene
    drawn = thinned(model, 0.006)
    assert drawn.mesh_facenum.sum() < 0.2 * model.mesh_facenum.sum()
    assert np.abs(drawn.mesh_vert - model.mesh_vert).max() < 0.006 * np.sqrt(3)
    assert model.mesh_facenum.sum() == thinned(model, 0.0).mesh_facenum.sum()


def test_each_view_shows_each_cube_in_its_colour_where_its_intrinsics_say(scene):
    model, data = scene
    renderer = SceneRenderer(model, VIEWS, shadows=False, detail_m=0.006)
    images = renderer.draw(data.qpos)
    renderer.close()
    for view in VIEWS:
        image = images[view.name]
        assert image.shape == (view.height_px, view.width_px, 3) and image.dtype == np.uint8
        assert image.std() > 20
        position, axes = camera_pose(data, view)
        for cube in CUBES:
            pixel = project(view, axes, position, data.body(cube.name).xpos)
            u, v = np.round(pixel).astype(int)
            assert 0 <= u < view.width_px and 0 <= v < view.height_px, (view.name, cube.name)
            assert hue_distance(image[v, u], cube.rgb) < 0.15, (view.name, cube.name, image[v, u])


def hue_distance(pixel, rgb):
    """Largest difference of the two colours, each scaled to brightness one."""
    seen, wanted = np.array(pixel, float), np.array(rgb, float)
    return np.abs(seen / np.linalg.norm(seen) - wanted / np.linalg.norm(wanted)).max()


def test_the_whole_reachable_area_and_the_gripper_are_in_the_external_view(scene):
    _, data = scene
    view = cameras.EXTERNAL
    position, axes = camera_pose(data, view)
    corners = [(x, y, 0.02) for x in (0.32, 0.65) for y in (-0.28, 0.28)]
    for point in [*corners, (0.45, 0.0, 0.38), (0.45, 0.0, 0.02)]:
        u, v = project(view, axes, position, np.array(point))
        assert 0 <= u < view.width_px and 0 <= v < view.height_px, point


def test_the_wrist_view_shows_both_fingertips(scene):
    _, data = scene
    view = cameras.WRIST
    position, axes = camera_pose(data, view)
    for finger in ("left", "right"):
        body = data.body(f"robot0_{finger}_finger")
        tip = body.xpos + body.xmat.reshape(3, 3) @ [0.0, 0.01, 0.045]
        u, v = project(view, axes, position, tip)
        assert 0 <= u < view.width_px and view.height_px / 2 < v < view.height_px


def test_a_larger_picture_shows_the_same_view():
    large = sized(cameras.EXTERNAL, 560, 420)
    assert large.intrinsics[0, 0] == pytest.approx(2 * cameras.EXTERNAL.intrinsics[0, 0])
    assert large.intrinsics[0, 2] == pytest.approx((560 - 1) / 2)


def test_objects_and_bodies_carry_the_same_names(simulator):
    names = {simulator.model.body(i).name for i in range(simulator.model.nbody)}
    assert set(OBJECTS) <= names
