"""A ROS domain and a loopback address that nobody else on this machine uses."""

import contextlib
import os
import random
import socket
from collections.abc import Iterator

import domain_coordinator

ROBOT_PORTS = (1337, 1338)  # arm and hand, as libfranka has them


@contextlib.contextmanager
def free_domain_id() -> Iterator[int]:
    """ROS_DOMAIN_ID when it is set, otherwise a free one, reserved while the block runs.

    Raises:
        ValueError: ROS_DOMAIN_ID is no number.
    """
    given = os.environ.get("ROS_DOMAIN_ID", "")
    if given:
        if not given.isdigit():
            raise ValueError(f"ROS_DOMAIN_ID is {given!r}; it must be a number such as 7")
        yield int(given)
        return
    reservation = domain_coordinator.domain_id()
    domain = reservation.__enter__()
    try:
        yield domain
    finally:
        # Not as a `with` block: it would take an OSError of the caller for a domain in use.
        reservation.__exit__(None, None, None)


def free_loopback_host(tries: int = 50) -> str:
    """An address 127.x.y.z on which the simulated robot's ports can be bound.

    Raises:
        OSError: none found.
    """
    for _ in range(tries):
        host = f"127.{random.randint(60, 250)}.{random.randint(0, 250)}.{random.randint(1, 250)}"
        if ports_are_free(host):
            return host
    raise OSError(f"no loopback address with free ports {ROBOT_PORTS} in {tries} tries")


def ports_are_free(host: str, ports: tuple[int, ...] = ROBOT_PORTS) -> bool:
    """Whether nobody listens on these TCP ports of `host`."""
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True
