"""A Franka that speaks the robot's own protocol, in a process of its own, with faults on demand.

The robot is the simulated world's, on an empty floor; what is added are orders: a reflex, a mode
that does not move, a gripper that does not answer, a clock that stands still or jumps, and a record
of what the robot itself commands.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path


class SimulatedFranka:
    """`with SimulatedFranka("127.42.0.1") as robot: ...`; the process ends with the block.

    Args:
        host: address whose ports the robot listens on.
        clock: publish the robot's time as /clock, 100 times a second.

    Attributes:
        clock_start_s: what /clock says when the robot is switched on; add `inject`'s robot time.
    """

    def __init__(self, host: str, clock: bool = False):
        self.host, self._clock, self.clock_start_s = host, clock, 100.0
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "SimulatedFranka":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.thaw()
        if self._process is not None:
            self._process.stdin.close()  # it ends in order, and takes its shared memory with it
            try:
                self._process.wait(20.0)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def start(self) -> None:
        """Switch the robot on and wait until it listens."""
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__)),
                self.host,
                *([str(self.clock_start_s)] if self._clock else []),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,  # Ctrl-C is for the program that uses it
        )
        self._expect("ready")

    def inject(self, order: str) -> float:
        """Have the robot do something; the robot time at which it did [s].

        Args:
            order: one of reflex, mode MODE, gripper_silent, gripper_answers, clock_off, clock_on,
                clock_jump SECONDS, time, record, or write FILE: an .npy of every tick since
                `record`, (n, 8): robot time [s] and the pose that the robot commands, xyz + xyzw.
        """
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        return float(self._expect(order))

    def freeze(self) -> None:
        """As if the network cable were cut."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """As if it were put back."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Power off."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.stdout.close()
            self._process = None

    def _expect(self, word: str) -> str:
        line = self._process.stdout.readline().strip()
        said, _, rest = line.partition(" @ ")
        assert said == word, f"the simulated robot said {line!r} instead of {word!r}"
        return rest


def _serve(host: str, publish_clock) -> None:
    import itertools
    import threading

    import numpy as np
    import pinocchio as pin
    from franky_sim import franka_robot_protocol as protocol
    from franky_sim.mujoco_simulator import MujocoSimulator

    from spear_bringup.sim import franka_server
    from spear_bringup.sim.franka_robot import TICK_S, add_franka
    from spear_bringup.sim.world import Pacer

    orders: list[str] = []

    def read_orders() -> None:
        for line in sys.stdin:
            orders.append(line.strip())
        mode["ends"] = True  # the test that owns this process is through, or gone

    def carry_out(order: str) -> None:
        name, _, argument = order.partition(" ")
        if name == "reflex":
            arm.trigger_reflex()
        elif name == "mode":
            mode["now"] = None if argument == "Idle" else int(protocol.RobotMode[f"k{argument}"])
            if mode["now"] is not None and (motion := arm.current_motion_id):
                arm.stop_motion(send_preemption_signal=False)
                arm.reset_current_motion_id()
                command, aborted = protocol.RobotCommand.kMove, protocol.MoveStatus.kAborted
                protocol.MoveCommand.send_response(arm._tcp_socket, command, motion, aborted)
        elif name == "record":
            mode["recording"] = []
        elif name == "write":
            rows, mode["recording"] = mode["recording"], None
            np.save(argument, np.array(rows))
        elif name.startswith("gripper"):
            mode["hand_silent"] = name == "gripper_silent"
        elif name == "clock_jump":
            mode["clock_jump_s"] += float(argument)
        elif name != "time":
            mode["clock"] = name == "clock_on"

    # No tick without the client's answer to the one before: on a busy machine motions take longer
    # in wall time and are the same in robot time. After 1 s the client gives up.
    franka_server.LAG_LIMIT_TICKS, franka_server.PATIENCE_S = 0, 0.9
    simulator = MujocoSimulator()
    simulator.init()
    robot = add_franka(simulator)
    server = franka_server.FrankaWorldServer(simulator, robot, host)
    arm, hand = server.robot, server.robot.gripper_server
    mode = {"now": None, "hand_silent": False, "clock": True, "ends": False}
    mode |= {"recording": None, "clock_jump_s": 0.0}
    true_modes, check_motion = type(arm).modes.fget, hand._check_motion_state

    def modes(self) -> tuple[int, int, int]:
        generator, controller, robot_mode = true_modes(self)
        return generator, controller, robot_mode if mode["now"] is None else mode["now"]

    type(arm).modes = property(modes)
    hand._check_motion_state = lambda: None if mode["hand_silent"] else check_motion()
    simulator.start()
    threading.Thread(target=read_orders, daemon=True).start()
    print("ready", flush=True)
    pacer = Pacer(1.0, TICK_S)
    for tick in itertools.count():
        if mode["ends"]:
            return
        if orders:
            order = orders.pop(0)
            carry_out(order)
            print(f"{order} @ {tick * TICK_S:.3f}", flush=True)
        if mode["clock"] and tick % 10 == 0:
            publish_clock(tick * TICK_S + mode["clock_jump_s"])
        server.tick()
        if mode["recording"] is not None:
            pose = robot.quantities["O_T_EE_c"].value
            mode["recording"].append((tick * TICK_S, *pin.SE3ToXYZQUAT(pose)))
        pacer.wait()


def _clock_publisher(start_s: float):
    import rclpy
    from rosgraph_msgs.msg import Clock

    from spear_policy.nodes.messages import s_to_stamp

    rclpy.init()
    publisher = rclpy.create_node("simulated_franka").create_publisher(Clock, "/clock", 10)
    return lambda time_s: publisher.publish(Clock(clock=s_to_stamp(start_s + time_s)))


if __name__ == "__main__":
    if sys.argv[2:]:
        _serve(sys.argv[1], _clock_publisher(float(sys.argv[2])))
        import rclpy

        rclpy.shutdown()
    else:
        _serve(sys.argv[1], lambda time_s: None)
