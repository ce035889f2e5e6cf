"""A package with one small lifecycle node, for tests of what starts and manages nodes."""

import os
import sys
from pathlib import Path

from spear_bringup.graph import NodeSpec

_NODE = f"""#!{sys.executable}
import os, subprocess, sys, time
from spear_policy.nodes.lifecycle import RefusedError, SpearNode, run

class Dummy(SpearNode):
    def __init__(self):
        super().__init__("dummy")
        self.declare_parameter("refuse", "")
        self.declare_parameter("slow_s", 0.0)
        self.declare_parameter("child", False)
        if self.get_parameter("child").value:
            subprocess.Popen(["sleep", "600"])

    def configure(self):
        if self.get_parameter("refuse").value == "configure":
            raise RefusedError("max_speed_m_s is -1.0; it must be 0 to 2 m/s")

    def activate(self):
        time.sleep(self.get_parameter("slow_s").value)
        if self.get_parameter("refuse").value == "crash":
            print("the last words", flush=True)
            os._exit(3)

if __name__ == "__main__":
    sys.exit(run(Dummy))
"""


def install_dummies(folder: Path, monkeypatch) -> None:
    """Make the package `dummies` with the executable `dummy` under `folder`, for ament to find."""
    index = folder / "share/ament_index/resource_index/packages"
    programs = folder / "lib/dummies"
    for part in (index, programs):
        part.mkdir(parents=True)
    (index / "dummies").touch()
    (programs / "dummy").write_text(_NODE)
    (programs / "dummy").chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{folder}:{os.environ['AMENT_PREFIX_PATH']}")


def dummy(name: str, **parameters) -> NodeSpec:
    """A spec of the dummy node: `refuse` ("configure" or "crash"), `slow_s`, `child`."""
    return NodeSpec("dummies", "dummy", name, parameters=parameters)
