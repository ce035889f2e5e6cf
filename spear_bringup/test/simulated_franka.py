"""A Franka that speaks the robot's own protocol, in a process of its own, with faults on demand.

The server is franky-sim's. Two of its defects are mended from outside, as the simulated world does:
its state shares one array between measured and commanded pose, and its gains lag by 100 ms. What it
lacks is added: reflexes, modes that do not move, and a gripper that does not answer.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

KV = (90.0, 90.0, 70.0, 70.0, 40.0, 40.0, 40.0)


class SimulatedFranka:
    """`with SimulatedFranka("127.42.0.1") as robot: ...`; the process ends with the block."""

    def __init__(self, host: str):
        self.host = host
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "SimulatedFranka":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.kill()

    def start(self) -> None:
        """Switch the robot on and wait until it listens."""
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), self.host],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._expect("ready")

    def tell(self, order: str) -> None:
        """One of: reflex, mode <franka mode>, gripper_deaf, gripper_hears."""
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        self._expect(order)

    def freeze(self) -> None:
        """As if the network cable were cut."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Power off."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None

    def _expect(self, word: str) -> None:
        line = self._process.stdout.readline().strip()
        assert line == word, f"the simulated robot said {line!r} instead of {word!r}"


def _serve(host: str) -> None:
    import threading
    import time

    from franky_sim import SimulationServer
    from franky_sim import franka_robot_protocol as protocol
    from franky_sim.base_simulator import BaseRobot
    from franky_sim.franka_gripper_server import FrankaGripperServer
    from franky_sim.franka_robot_server import FrankaRobotServer
    from franky_sim.mujoco_simulator import MujocoSimulator

    fault = {"mode": None, "errors": (), "gripper_deaf": False}
    kinematics, true_state = BaseRobot.kinematics, FrankaRobotServer.robot_state.fget
    check_gripper = FrankaGripperServer._check_motion_state

    def robot_state(server):
        state = true_state(server)
        if fault["mode"] is None:
            return state
        errors = tuple(i in fault["errors"] for i in range(41))
        return state.replace(robot_mode=fault["mode"], errors=errors)

    def handle_move(command, server, handle=protocol.MoveCommand.handle):
        if fault["mode"] is not None:
            command.reply(protocol.MoveStatus.kCommandNotPossibleRejected)
        else:
            handle(command, server)

    def handle_recovery(command, server, handle=protocol.AutomaticErrorRecoveryCommand.handle):
        if fault["mode"] == protocol.RobotMode.kReflex:
            fault.update(mode=None, errors=())
        handle(command, server)

    BaseRobot.kinematics = lambda self, q: kinematics(self, q).copy()
    FrankaRobotServer.robot_state = property(robot_state)
    protocol.MoveCommand.handle = handle_move
    protocol.AutomaticErrorRecoveryCommand.handle = handle_recovery
    FrankaGripperServer._check_motion_state = lambda self: (
        None if fault["gripper_deaf"] else check_gripper(self)
    )
    orders: list[str] = []

    def obey(server, order: str) -> None:
        name, _, argument = order.partition(" ")
        if name == "reflex":
            fault.update(mode=protocol.RobotMode.kReflex, errors=(7,))  # cartesian_reflex
            status = protocol.MoveStatus.kReflexAborted
        elif name == "mode":
            mode = protocol.RobotMode[f"k{argument}"]
            fault.update(mode=None if argument == "Idle" else mode, errors=())
            status = protocol.MoveStatus.kAborted
        else:
            fault["gripper_deaf"] = name == "gripper_deaf"
            return
        if motion := server.current_motion_id:
            server.stop_motion(send_preemption_signal=False)
            server.reset_current_motion_id()
            protocol.MoveCommand.send_response(
                server._tcp_socket, protocol.RobotCommand.kMove, motion, status
            )

    def listen() -> None:
        for line in sys.stdin:
            orders.append(line.strip())
        os._exit(0)  # the test that owns this process is gone

    with MujocoSimulator() as simulator:
        simulator.add_robot(kv=KV)
        with SimulationServer(simulator, hostname_candidates=[host]) as server:
            threading.Thread(target=listen, daemon=True).start()
            print("ready", flush=True)
            due = time.perf_counter()
            while True:
                if orders:
                    order = orders.pop(0)
                    obey(server.robot_servers[0], order)
                    print(order, flush=True)
                server.run_once(realtime=False)
                due = max(due + 0.001, time.perf_counter() - 0.2)
                time.sleep(max(0.0, due - time.perf_counter()))


if __name__ == "__main__":
    _serve(sys.argv[1])
