"""The world as a whole: time, reset, pictures, pace."""

import dataclasses
import threading
import time

import numpy as np
import pytest

from spear_bringup.graph import free_loopback_host
from spear_bringup.sim import rendering
from spear_bringup.sim.rendering import RenderingError
from spear_bringup.sim.table_top import layout
from spear_bringup.sim.world import DEBT_LIMIT_S, World, WorldListener, WorldSettings


class EventLog:
    """Everything a world said."""

    def __init__(self):
        self.clock, self.objects, self.images, self.ages_s = [], [], [], []
        self.world = None

    def listener(self):
        return WorldListener(
            lambda time_s: self.clock.append((time_s, time.monotonic())),
            lambda time_s, poses: self.objects.append((time_s, poses)),
            self.on_images,
        )

    @staticmethod
    def newest(said):
        """Simulated time of the last entry [s]; 0 before the first."""
        return said[-1][0] if said else 0.0

    def on_images(self, time_s, images):
        self.ages_s.append(self.world.time_s - time_s)
        self.images.append((time_s, images))


@pytest.fixture(scope="module")
def events():
    return EventLog()


@pytest.fixture(scope="module")
def world(events):
    patience = pytest.MonkeyPatch()
    # No robot client waits here, so physics may wait for the slowest machine's pictures.
    patience.setattr(rendering.RenderThread, "BUSY_LIMIT_S", 60.0)
    world = World(WorldSettings(host=free_loopback_host(), seed=3), events.listener())
    events.world = world
    world.start()
    yield world
    world.close()
    patience.undo()


def wait_until(condition, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def assert_standing(poses, expected):
    for name, pose in expected.items():
        assert poses[name].position_m == pytest.approx(pose.position_m, abs=1e-3), name


def test_a_world_starts_with_the_scene_of_its_seed(world):
    assert_standing(world.object_poses(), layout("random", 3))


def test_reset_moves_everything_to_where_the_seed_says(world, events):
    for seed in (11, 12):
        world.reset(seed)
        assert_standing(world.object_poses(), layout("random", seed))
        now_s = world.time_s
        wait_until(lambda after_s=now_s: events.newest(events.objects) > after_s)
        assert_standing(events.objects[-1][1], layout("random", seed))


def test_reset_stops_what_was_moving(world):
    def push():
        world.sim.data.joint("red cube").qvel[:] = [0.5, 0.0, 0.5, 1.0, 0.0, 0.0]

    world.call(push)
    world.reset(5)
    assert_standing(world.object_poses(), layout("random", 5))


def test_resets_from_many_threads_leave_one_whole_scene(world):
    threads = [threading.Thread(target=world.reset, args=(seed,)) for seed in range(20, 28)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    red = world.object_poses()["red cube"].position_m
    seed = min(
        range(20, 28),
        key=lambda s: np.linalg.norm(layout("random", s)["red cube"].position_m - red),
    )
    assert_standing(world.object_poses(), layout("random", seed))


def test_a_negative_seed_is_refused_and_changes_nothing(world):
    world.reset(4)
    with pytest.raises(ValueError, match="seed must be 0 or more"):
        world.reset(-4)
    assert_standing(world.object_poses(), layout("random", 4))


def test_the_clock_starts_after_zero_and_ticks_a_hundred_times_a_simulated_second(world, events):
    wait_until(lambda: len(events.clock) > 50)
    times = np.array([time_s for time_s, _ in events.clock])
    assert times[0] >= 1.0
    assert np.diff(times) == pytest.approx(0.01, abs=1e-9)


def test_simulated_time_never_runs_ahead_of_the_wall_clock(world, events):
    wait_until(lambda: len(events.clock) > 150)
    simulated, wall = np.array(events.clock).T
    ahead = simulated - wall
    # A busy machine reads the wall clock late now and then, which looks like falling behind: what
    # counts is the least late of the first readings. And a stall is made up for a little.
    assert ahead.max() - ahead[:50].max() < DEBT_LIMIT_S + 0.02


def test_time_stands_still_while_stopped_and_goes_on_after(world, events):
    world.stop()
    stopped_s, said = world.time_s, len(events.clock)
    assert_standing(world.object_poses(), world.object_poses())
    world.reset(6)
    assert world.time_s == stopped_s and len(events.clock) == said
    world.start()
    wait_until(lambda: len(events.clock) > said + 5)
    times = [time_s for time_s, _ in events.clock]
    assert np.diff(times) == pytest.approx(0.01, abs=1e-9)
    assert_standing(world.object_poses(), layout("random", 6))


def test_both_views_come_fifteen_times_a_simulated_second(world, events):
    wait_until(lambda: len(events.images) > 20)
    times = np.array([time_s for time_s, _ in events.images])
    periods = np.diff(times) * 15
    # On the grid of 15 Hz up to the millisecond of a tick; a machine at its limit may skip one.
    assert np.abs(periods - np.round(periods)).max() < 0.02
    assert np.round(periods).min() == 1
    for _, images in events.images[-3:]:
        assert images["external"].shape == (210, 280, 3)
        assert images["wrist"].shape == (112, 112, 3)


def test_a_picture_is_never_older_than_one_camera_period_of_simulated_time(world, events):
    wait_until(lambda: len(events.ages_s) > 20)
    assert max(events.ages_s) < 1 / 15 + 0.002


def test_pictures_follow_the_scene(world, events):
    def picture(seed):
        world.reset(seed)
        after_s = world.time_s
        wait_until(lambda: events.newest(events.images) > after_s)
        return events.images[-1][1]

    one, other, again = picture(1), picture(2), picture(1)
    for name in ("external", "wrist"):
        assert share_of_other_pixels(one[name], other[name]) > 0.002
        assert share_of_other_pixels(one[name], again[name]) < 0.0005


def share_of_other_pixels(a, b):
    return (np.abs(a.astype(int) - b).max(axis=2) > 40).mean()


def test_a_world_without_cameras_draws_nothing(world):
    blind = World(dataclasses.replace(world.settings, host=free_loopback_host(), cameras=False))
    assert blind.renderer is None
    blind.close()


def test_a_machine_that_cannot_draw_is_told_what_to_install(world, monkeypatch):
    def no_opengl(*_):
        raise RuntimeError("no display")

    monkeypatch.setattr(rendering.mujoco, "Renderer", no_opengl)
    settings = dataclasses.replace(world.settings, host=free_loopback_host())
    with pytest.raises(RenderingError, match="libegl1.*`cameras` false"):
        World(settings)
    # Its ports are free again.
    World(dataclasses.replace(settings, cameras=False)).close()


def test_physics_that_fails_is_reported(world):
    def explode(*_):
        raise FloatingPointError("boom")

    broken = World(
        dataclasses.replace(world.settings, host=free_loopback_host(), cameras=False),
        WorldListener(clock=explode),
    )
    broken.start()
    wait_until(lambda: not broken.running)
    assert "boom" in str(broken.failure)
    broken.close()
