"""An arm without a robot: a point that follows paths exactly, and a session that drives it."""

import re
import time
from dataclasses import replace

import numpy as np

from spear_bringup.control.command_core import CommandCore
from spear_bringup.control.gate import Reason
from spear_bringup.control.limits import Limits, Timing
from spear_bringup.control.path import Reference, RunningPath, path_through
from spear_bringup.drivers.arm_session import ArmSession
from spear_bringup.drivers.protocol import RobotState
from spear_policy.geometry.poses import Pose, chunk_from_poses

DOWN = np.array([1.0, 0.0, 0.0, 0.0])
START = np.array([0.45, 0.0, 0.38])


class PointArm:
    """An arm whose three joints are the end effector's position; it follows paths exactly."""

    joint_names = ("x", "y", "z")
    still_speed_rad_s = 0.01

    def __init__(self):
        self.sent, self.stops, self.recoveries = [], 0, 0
        self.silent = False
        self.refusal = None  # raised by send and check
        self._running = None
        self._place = START.copy()
        self._zero_s = time.monotonic()

    def connect(self):
        pass

    def disconnect(self):
        pass

    def read_state(self):
        time.sleep(0.001)
        while self.silent:
            time.sleep(0.01)
        now_s = time.monotonic()
        reference = self._at(now_s)
        pose = reference.pose
        return RobotState(
            robot_time_s=now_s - self._zero_s,
            joint_positions_rad=pose.position_m,
            joint_velocities_rad_s=reference.linear_m_s,
            joint_torques_nm=np.zeros(3),
            measured=pose,
            commanded=pose,
            mode="Move" if np.any(reference.linear_m_s) else "Idle",
        )

    def send(self, path):
        if self.refusal is not None:
            raise self.refusal
        now_s = time.monotonic()
        self.sent.append(path)
        self._running = RunningPath(path, self._at(now_s), now_s)

    def send_joints(self, durations_s, joint_positions_rad):
        orientations = np.tile(DOWN, (len(durations_s), 1))
        here = self._at(time.monotonic()).pose
        self.send(path_through(durations_s, joint_positions_rad, orientations, here))

    def stop(self):
        self.stops += 1
        self._place = self._at(time.monotonic()).pose.position_m
        self._running = None

    def check(self):
        if self.refusal is not None:
            raise self.refusal

    def recover(self):
        self.recoveries += 1
        self.check()

    def forward_kinematics(self, joint_positions_rad):
        return Pose(joint_positions_rad, DOWN)

    def _at(self, now_s):
        if self._running is None:
            return Reference.at_rest(Pose(self._place, DOWN))
        return self._running.at(now_s)


def until(condition, seconds=60.0):
    """The first truthy value of `condition()`."""
    end_s = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.002)
    return value


def assert_noticed_in_time(session):
    """The age thread itself latched a lost robot within its timeout and one tick of its own.

    Judged by the silence that it wrote down when it latched: the clock of a test would also count
    the time in which a busy machine did not run the driver at all.
    """
    reported = re.match(r"no state from the robot for ([\d.]+) s", session.core.latched.text)
    assert reported, f"it was not the age thread that noticed: {session.core.latched.text}"
    watchdog, rounding_s = session.watchdog, 0.005
    least_s, most_s = watchdog.timeout_s, watchdog.timeout_s + watchdog.longest_tick_s
    assert least_s - rounding_s <= float(reported[1]) <= most_s + rounding_s


class Driver:
    """A session on a point arm with a record of what it decided."""

    def __init__(self, **settings):
        self.arm = PointArm()
        self.decisions = []
        self.samples = []
        settings = {
            "simulated_time": False,
            "now_s": time.time,
            "robot_timeout_s": 20.0,
            **settings,
        }
        core = settings.pop("core", None) or CommandCore(
            Limits(), Timing(max_chunk_age_s=5.0, max_path_time_s=10.0)
        )
        self.session = ArmSession(
            self.arm,
            core,
            on_sample=self.samples.append,
            on_decision=lambda *decided: self.decisions.append(decided),
            **settings,
        )
        self.session.open()
        self._chunk_id = 0

    def chunk(self, delta_m=(0.05, 0.0, 0.0), opening=1.0, dt_s=0.1):
        """Send a chunk that leads to `delta_m` from here in five steps; what the gate decided.

        Where a busy machine let it become too late on the way, another one is sent.
        """
        while True:
            gate = self._send_chunk(delta_m, opening, dt_s)
            if gate.reason is not Reason.LATE:
                return gate

    def _send_chunk(self, delta_m, opening, dt_s):
        sample = self.session.sample
        here = sample.state.measured
        shares = np.arange(1, 6) / 5
        targets = [Pose(here.position_m + s * np.asarray(delta_m), DOWN) for s in shares]
        made = chunk_from_poses(sample.stamp_s, dt_s, here, here, targets, [opening] * 5)
        self._chunk_id += 1
        object.__setattr__(made, "chunk_id", self._chunk_id)
        object.__setattr__(made, "source_id", "test")
        core = self.session.core
        core.timing = replace(core.timing, step_dt_s=dt_s)
        self.session.on_chunk(made, hold=False, received_s=time.monotonic())
        return until(self._answer)

    def _answer(self):
        """What was decided about the newest chunk; None as long as nothing is."""
        answers = [
            decision.gate
            for decision, about_chunk, _ in list(self.decisions)
            if about_chunk and decision.gate.chunk_id == self._chunk_id
        ]
        return answers[-1] if answers else None

    def judged(self):
        """(verdict, reason) of the newest decision."""
        return self.session.gate.verdict, self.session.gate.reason

    @property
    def place(self):
        return self.session.sample.state.measured.position_m
