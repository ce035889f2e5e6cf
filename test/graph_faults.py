"""Faults of a whole graph: cameras, policy, recorder, processes; each a row of the fault matrix."""

import os
import resource
import signal
import time
from pathlib import Path

from fault_benches import OTHER_INSTRUCTION, PATIENCE_S, busy, row
from recorder_fixture import counts_in

from spear_bringup.nodes.lifecycle_manager import TransitionError
from spear_bringup.nodes.supervisor import GraphError
from spear_bringup.trials.bag_repair import repair
from spear_msgs.msg import PolicyStatus

# Cameras and policy -------------------------------------------------------------------------------


def camera_stops(name):
    """A row: one camera falls silent while the arm moves."""

    def run(bench):
        bench.start_motion()
        bench.inject(lambda: bench.cameras.discard(name))
        status = bench.watcher.policy
        bench.until(
            lambda: status[-1].state == PolicyStatus.STATE_BLOCKED and name in status[-1].text,
            f"the policy's word about the {name} camera",
        )

    injected = f"the {name} camera stops publishing"
    row(f"{name} camera stops", injected, "graph", "HELD HOLD_REQUESTED", 0.9)(run)


camera_stops("external")
camera_stops("wrist")


@row(
    "camera freezes",
    "both cameras repeat their last picture with fresh stamps while the arm moves",
    "graph",
    "HELD HOLD_REQUESTED",
    1.2,
)
def _camera_freezes(bench):
    bench.start_motion()
    bench.inject(lambda: setattr(bench, "frozen", True))


@row(
    "instruction changes",
    "another instruction while the arm moves: the old steps end, the next chunk has its id",
    "graph",
    "HELD HOLD_REQUESTED",
    0.3,
    motion="goes on",
)
def _instruction_changes(bench):
    bench.start_motion()
    before = bench.watcher.chunks[-1].instruction_id
    bench.inject(lambda: bench.instruct(OTHER_INSTRUCTION))
    bench.until(lambda: bench.watcher.chunks[-1].instruction_id > before, "the new id")


@row(
    "policy hangs",
    "the policy's process is stopped (SIGSTOP); counted from then, with up to 1 s of "
    "steps left. Going on, it does not repeat what it had",
    "graph",
    "HELD CHUNK_TIMEOUT",
    1.9,
)
def _policy_hangs(bench):
    bench.start_motion()
    bench.inject(lambda: bench.graph.processes["policy"].send(signal.SIGSTOP))
    bench.on_end(lambda: bench.graph.processes["policy"].send(signal.SIGCONT))


@row(
    "/clock back by 30 s, policy",
    "/clock jumps back by 30 s for the whole graph: the policy says so and holds",
    "graph",
    "HELD",
    0.3,
)
def _clock_back_policy(bench):
    bench.start_motion()
    bench.jump_clock(-30.0)
    bench.until(
        lambda: (
            bench.watcher.policy[-1].state != PolicyStatus.STATE_RUNNING
            and "clock" in bench.watcher.policy[-1].text
        ),
        "the policy's word about the clock",
    )


@row(
    "camera shows depth",
    "the external camera publishes 16UC1 when the policy is activated: it refuses and says why",
    "graph",
    "",
    20.0,
    motion="unmoved",
)
def _camera_shows_depth(bench):
    policy = bench.graph.managed.clients["/policy"]
    policy.change("deactivate", PATIENCE_S)
    bench.on_end(bench.graph.managed.bring_up)
    bench.on_end(lambda: setattr(bench, "encoding", "rgb8"))
    bench.inject(lambda: setattr(bench, "encoding", "16UC1"))
    try:
        bench.graph.managed.bring_up()
    except TransitionError as refusal:
        bench.found()
        log = bench.graph.processes["policy"].last_lines()
        assert "16UC1" in log and "external" in log, f"{refusal}; {log}"
    else:
        raise AssertionError("the policy took depth for colour")


@row(
    "other machines",
    "the sockets of every process are looked at: none listens beyond this machine",
    "graph",
    "",
    5.0,
    motion="unmoved",
)
def _other_machines(bench):
    bench.inject()
    least = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for name, process in bench.graph.processes.items():
        links = [os.readlink(each) for each in Path(f"/proc/{process.pid}/fd").iterdir()]
        own = {link[8:-1] for link in links if link.startswith("socket:[")}
        for line in Path(f"/proc/{process.pid}/net/udp").read_text().splitlines()[1:]:
            fields = line.split()
            address, port = fields[1].split(":")
            # From ephemeral ports nodes only send; 0100FFEF is the multicast group, on loopback.
            if fields[9] in own and int(port, 16) < least:
                assert address in ("0100007F", "0100FFEF"), f"{name} listens on {fields[1]}"
    bench.found()


@row(
    "busy machine",
    "a busy process for each core for 3 s: no limit is broken, nothing latches",
    "graph",
    "",
    5.0,
    motion="goes on",
)
def _busy_machine(bench):
    bench.start_motion()
    bench.inject()
    with busy(os.cpu_count()):
        time.sleep(3.0)
    assert not bench.said().startswith("STOPPED"), bench.said()


# Processes that die -------------------------------------------------------------------------------


@row(
    "policy dies",
    "the policy's process is killed (SIGKILL); counted from then, with up to 1 s of steps "
    "left. A new one does not move the arm by an instruction from before",
    "graph",
    "HELD CHUNK_TIMEOUT",
    1.9,
)
def _policy_dies(bench):
    bench.start_motion()
    bench.inject(lambda: bench.graph.kill("policy"))
    bench.until(lambda: bench.said().startswith("HELD CHUNK_TIMEOUT"), "a hold")
    bench.restart("policy")
    chunks = len(bench.watcher.chunks)
    bench.let(1.5)
    moving = [chunk for chunk in bench.watcher.chunks[chunks:] if chunk.steps]
    assert not moving, "the restarted policy went on with the instruction from before"


@row(
    "bag disk full",
    "the file system takes no more of the bag (RLIMIT_FSIZE) in a trial: it ends as "
    "ABORTED, and with room again bag_repair makes what came before readable",
    "graph",
    "HELD HOLD_REQUESTED",
    2.0,
)
def _disk_full(bench):
    bag = bench.start_trial()
    bench.start_motion()
    pid = bench.graph.processes["trial_recorder"].pid
    mcap = bag / f"{bag.name}.mcap"
    bench.until(lambda: mcap.stat().st_size > 50_000, "a bag of 50 kB")
    size = mcap.stat().st_size
    bench.on_end(
        lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    )
    bench.inject(
        lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    )
    row = bench.until(lambda: bench.row_of(bag), "the row of the trial")
    assert row.outcome == "ABORTED" and "size limit" in row.fault, row
    bench.end()  # room again
    repair(bag)
    assert sum(counts_in(bag).values()) > 20


@row(
    "recorder dies",
    "the recorder is killed (SIGKILL) in a trial: the supervisor says so, and the next "
    "recorder makes the bag readable and writes its row",
    "graph",
    "",
    2.0,
    motion="goes on",
)
def _recorder_dies(bench):
    bag = bench.start_trial()
    bench.start_motion()
    time.sleep(1.0)
    process = bench.graph.processes["trial_recorder"]
    bench.inject(lambda: process.send(signal.SIGKILL))

    def told():
        try:
            bench.graph.check()
        except GraphError as error:
            return "trial_recorder was killed" in str(error)

    bench.until(told, "the supervisor's word")
    bench.found()
    bench.restart("trial_recorder")
    row = bench.until(lambda: bench.row_of(bag), "the row of the trial")
    assert row.outcome == "ABORTED" and "died" in row.fault, row
    assert sum(counts_in(bag).values()) > 20


@row(
    "driver dies",
    "the driver's process is killed (SIGKILL): the robot stops by itself",
    "graph",
    "",
    0.5,
    until_fault=True,
)
def _driver_dies(bench):
    bench.start_motion()
    bench.inject(lambda: bench.graph.kill("franka_driver"))
    bench.found()
    bench.on_end(lambda: bench.restart("franka_driver"))
