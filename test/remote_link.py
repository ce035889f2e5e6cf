"""A network between the robot's machine and the policy's, on one machine, that a test can cut."""

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

# Network namespaces share /dev/shm, machines do not: so the remote side gets UDP and nothing else.
# In the range LOCALHOST, rmw_fastrtps would set its own transports in place of these.
UDP_ONLY = ["env", "-u", "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS=UDPv4"]
UDP_ONLY += ["ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET"]
PROFILE = Path(__file__).resolve().parents[1] / "spear_bringup" / "config" / "fastdds_shm.xml"
LOOPBACK = "<address>127.0.0.1</address>"


class Namespaces:
    """A namespace for the policy, joined with the test's own by a pair of virtual Ethernet ports.

    Each side looks for the other by its address, so nothing is sent to the rest of the network:
    on this side the discovery range stays LOCALHOST.

    This side opens its FastDDS profile to the other by one address, as docs/remote.md says. FastDDS
    reads profile and addresses once in the life of a process, which must not have had ROS before.

    Attributes:
        prefix: words before a command that is to run over there.
        environment: what programs on this side need.
        is_network: whether `cut` cuts a network.
    """

    is_network = True

    def __init__(self):
        number = os.getpid()
        self.name, self._here, there = f"spear{number}", f"sp{number}a", f"sp{number}b"
        net = f"10.{200 + number % 50}.{number // 50 % 250}"
        here_ip, there_ip = f"{net}.1", f"{net}.2"
        peer = f"ROS_STATIC_PEERS={here_ip}"
        self.prefix = ["ip", "netns", "exec", self.name, *UDP_ONLY, peer]
        text = PROFILE.read_text()
        assert text.count(LOOPBACK) == 1
        self._profile = Path(tempfile.mkdtemp(prefix="spear_link_")) / "opened.xml"
        self._profile.write_text(text.replace(LOOPBACK, f"{LOOPBACK}<address>{here_ip}</address>"))
        self._here_ip = here_ip
        self.environment = {
            "ROS_STATIC_PEERS": there_ip,
            "FASTRTPS_DEFAULT_PROFILES_FILE": str(self._profile),
        }
        _ip("netns", "add", self.name)
        try:
            _ip("link", "add", self._here, "type", "veth", "peer", there, "netns", self.name)
            _ip("addr", "add", f"{here_ip}/30", "dev", self._here)
            _ip("link", "set", self._here, "up")
            for words in (
                ("addr", "add", f"{there_ip}/30", "dev", there),
                ("link", "set", there, "up"),
                ("link", "set", "lo", "up"),
            ):
                _ip("-n", self.name, *words)
        except OSError:
            self.close()
            raise

    def opened(self) -> bool:
        """Whether the nodes of this process listen at this end of the link."""
        address = bytes(map(int, reversed(self._here_ip.split(".")))).hex().upper()
        return f" {address}:" in Path("/proc/self/net/udp").read_text()

    def cut(self, process) -> None:
        """Pull the cable."""
        _ip("link", "set", self._here, "down")

    def restore(self, process) -> None:
        """Plug it in again."""
        _ip("link", "set", self._here, "up")

    def close(self) -> None:
        """Remove the namespace, and with it the pair of ports."""
        shutil.rmtree(self._profile.parent, ignore_errors=True)
        with suppress(OSError):
            _ip("link", "del", self._here)
        _ip("netns", "del", self.name)


class Loopback:
    """For a user who may not make namespaces: another process, over UDP; cut by stopping it."""

    prefix, is_network = UDP_ONLY, False
    environment = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}

    def opened(self) -> bool:
        """Whatever profile there is, loopback is in it."""
        return True

    def cut(self, process) -> None:
        """Stop the policy."""
        process.send(signal.SIGSTOP)

    def restore(self, process) -> None:
        """Let it go on."""
        process.send(signal.SIGCONT)

    def close(self) -> None:
        """Nothing to remove."""


@contextmanager
def remote_link():
    """The best link that this user may have."""
    try:
        link = Namespaces()
    except OSError as error:
        print(f"no network namespaces here ({error}): over UDP on loopback")
        link = Loopback()
    try:
        yield link
    finally:
        link.close()


def _ip(*words: str) -> str:
    if not shutil.which("ip"):
        raise OSError("there is no program ip; Debian's package iproute2 has it")
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
