"""Finish a virtual environment with ROS 2 wheels; run by its own Python (see bootstrap.py).

Mends the include paths that the wheels' CMake files carry from the machine that built them,
and writes setup.sh and its links into the environment's root. colcon finds them there by
itself, so sourcing install/setup.bash is enough afterwards.
"""

import re
import sys
import sysconfig
from pathlib import Path

import numpy

BUILDER = r"/opt/python/cp3\d+-cp3\d+"
NUMPY_INCLUDE = re.compile(BUILDER + r"/lib/python3\.\d+/site-packages/numpy/_?core/include")
PYTHON_INCLUDE = re.compile(BUILDER + r"/include/python3\.\d+")

SETUP = """\
# ROS 2 Jazzy in this virtual environment, for sh, bash and zsh. Written by
# requirements/environment.py; sourced by install/setup.bash.
_spear_prepend() {{
  eval "_spear_old=\\"\\${{$1:-}}\\""
  case ":$_spear_old:" in
    *":$2:"*) ;;
    *) export "$1=$2${{_spear_old:+:$_spear_old}}" ;;
  esac
  unset _spear_old
}}
{prepends}
unset -f _spear_prepend
export VIRTUAL_ENV="{venv}"
export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
export ROS_DISTRO=jazzy ROS_VERSION=2 ROS_PYTHON_VERSION=3
export RMW_IMPLEMENTATION="${{RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}}"
export ROS_AUTOMATIC_DISCOVERY_RANGE="${{ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}}"
# Two busy-waiting threads on two busy cores are slower than one.
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-1}}"
# MuJoCo renders without a screen.
export MUJOCO_GL="${{MUJOCO_GL:-egl}}"
"""


def mend_include_paths(venv):
    """Point the wheels' CMake files at this machine's Python and numpy headers."""
    python_include = sysconfig.get_path("include")
    if not Path(python_include, "Python.h").exists():
        sys.exit(f"No Python.h in {python_include}: install python3-dev.")
    for path in venv.glob("share/*/cmake/*.cmake"):
        text = path.read_text()
        mended = PYTHON_INCLUDE.sub(python_include, NUMPY_INCLUDE.sub(numpy.get_include(), text))
        if mended != text:
            path.write_text(mended)


def write_setup_files(venv):
    """Write setup.sh and link the other names that shells and colcon look for."""
    libraries = sorted(Path(sysconfig.get_path("purelib")).glob("ros_*.libs"))
    paths = [("LD_LIBRARY_PATH", path) for path in libraries]
    paths += [("LD_LIBRARY_PATH", venv / "lib"), ("PATH", venv / "bin")]
    paths += [("AMENT_PREFIX_PATH", venv), ("CMAKE_PREFIX_PATH", venv)]
    prepends = "\n".join(f'_spear_prepend {name} "{path}"' for name, path in paths)
    (venv / "setup.sh").write_text(SETUP.format(prepends=prepends, venv=venv))
    for stem in ("setup", "local_setup"):
        for shell in ("sh", "bash", "zsh"):
            link = venv / f"{stem}.{shell}"
            if link.name != "setup.sh":
                link.unlink(missing_ok=True)
                link.symlink_to("setup.sh")


if __name__ == "__main__":
    root = Path(sys.argv[1])
    mend_include_paths(root)
    write_setup_files(root)
