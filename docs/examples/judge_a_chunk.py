"""What would the gate say to a chunk? Ask it without a robot and without ROS.

python3 docs/examples/judge_a_chunk.py [METRES]      # how far the chunk goes along x in 1 s
"""

import sys
from dataclasses import replace

from spear_bringup.control.command_core import CommandCore
from spear_bringup.control.limits import Limits, Timing
from spear_policy.geometry.poses import Pose, PoseHistory, chunk_from_poses


def main(metres=0.05):
    now_s, down = 10.0, [1.0, 0.0, 0.0, 0.0]  # xyzw: the gripper points down
    start = Pose([0.5, 0.0, 0.3], down)
    targets = [Pose([0.5 + metres * k / 5, 0.0, 0.3], down) for k in range(1, 6)]
    chunk = chunk_from_poses(now_s, 0.2, start, start, targets, [1.0] * 5)
    chunk = replace(chunk, source_id="example", chunk_id=1)
    history = PoseHistory()
    history.add(now_s, start, start)
    core = CommandCore(Limits(max_linear_speed_m_s=0.15), Timing())
    decision = core.on_chunk(
        chunk,
        hold=False,
        now_s=now_s,
        received_age_s=0.0,
        measured=start,
        commanded=start,
        history=history,
    )
    verdict = decision.gate
    print(f"{verdict.verdict.name}: {verdict.reason.name} {verdict.text}")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
