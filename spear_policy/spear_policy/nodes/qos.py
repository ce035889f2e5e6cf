"""The four qualities of service on the wire."""

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(reliable: bool, depth: int, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
    )


SENSOR = _profile(reliable=False, depth=5)  # images, states: the newest counts, a lost one is gone
COMMAND = _profile(
    reliable=True, depth=1
)  # action_chunk: every one must arrive, only the last counts
EVENT = _profile(reliable=True, depth=10)  # command: every one counts
LATCHED = _profile(reliable=True, depth=1, latched=True)  # instruction, status: late joiners see it
