"""Make the workspace's environment on a machine without ROS.

    python3 requirements/bootstrap.py .venv [training] [annotation] [dev]

Checks the Debian packages, makes a virtual environment with the ROS 2 Jazzy wheels and what a
robot or its simulation imports, and writes the environment file that plays the part of
/opt/ros/jazzy/setup.bash. The words after the folder are further lists of requirements/; what was
installed once stays. Running it again repairs what is missing and is otherwise quick.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
LISTS, EXTRAS = ["ros", "common", "robot"], ["training", "annotation", "dev"]
# pip's settings and the variables of uv that mean the same.
UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "constraint": "UV_CONSTRAINT",
    "cert": "SSL_CERT_FILE",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
}
OLDEST, NEWEST = (3, 11), (3, 12)


def check_python():
    """Stop when the pinned wheels do not exist for this Python or this machine."""
    version = sys.version_info[:2]
    if not OLDEST <= version <= NEWEST:
        sys.exit(
            f"SPEAR needs Python {OLDEST[0]}.{OLDEST[1]} or {NEWEST[0]}.{NEWEST[1]}, this is "
            f"{version[0]}.{version[1]}: say `make setup PYTHON=/path/to/python3.11`."
        )
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        sys.exit("The ROS 2 wheels exist for x86_64 Linux only; elsewhere use apt ROS 2 Jazzy.")


def missing_debian_packages():
    """Return the Debian packages that are needed and not installed."""
    lines = (HERE / "debian.txt").read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    states = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted],
        capture_output=True,
        text=True,
    ).stdout
    present = {line.split()[0] for line in states.splitlines() if line.endswith(" installed")}
    missing = [name for name in wanted if name not in present]
    # A Python that did not come from Debian may bring its own venv module and headers.
    if not has_module("ensurepip"):
        missing.append("python3-venv")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        missing.append("python3-dev")
    return missing


def has_module(name):
    """Tell whether this Python can import the module."""
    return (
        subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True).returncode
        == 0
    )


def install_debian_packages():
    """Install missing Debian packages when we may, otherwise name them all and stop."""
    if shutil.which("dpkg-query") is None:
        print("Not a Debian system: see requirements/debian.txt for the packages it would need.")
        return
    missing = missing_debian_packages()
    if not missing:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0:
        sys.exit("These Debian packages are needed. Please run:\n    sudo " + " ".join(command))
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    print("Installing Debian packages:", *missing, flush=True)
    for step in (["apt-get", "update"], command):
        result = subprocess.run(
            step, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    still_missing = missing_debian_packages()
    if still_missing:
        print(result.stdout)
        sys.exit("Could not install: " + " ".join(still_missing))


def fingerprint():
    """Return a hash of everything the environment is made from."""
    digest = hashlib.sha256(f"{sys.base_prefix} {sys.version}".encode())
    for path in sorted(HERE.glob("*.txt")) + sorted(HERE.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def make_venv(venv):
    """Make the virtual environment, anew when the one that is there does not run."""
    python = venv / "bin" / "python"
    if python.exists() and subprocess.run([python, "-c", ""]).returncode == 0:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
    return python


def install_packages(python, arguments):
    """Install into the environment with uv, several times as fast as pip; returns its status."""
    pip = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    if subprocess.run([*pip, "-q", "-c", HERE / "constraints.txt", "uv"]).returncode:
        print("uv cannot be had here; pip takes longer, and shows little.", flush=True)
        return subprocess.run([*pip, "-q", *arguments]).returncode
    uv = [python.parent / "uv", "pip", "install", "--python", python]
    environment = {**os.environ, **uv_settings(python)}
    return subprocess.run([*uv, *arguments], env=environment).returncode


def uv_settings(python):
    """Return what pip is configured with (mirror, certificates, limits) in uv's own variables."""
    listed = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True)
    # As pip does: the best version of all indexes, not of the first one that has the package.
    # Copies, because environment.py writes into some of the files: links would change uv's cache.
    settings = {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_LINK_MODE": "copy"}
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        value = value.strip("'\"")
        if name := UV_NAMES.get(key.rpartition(".")[2]):
            # uv takes a list with commas where paths may hold spaces.
            listing = value.split()
            settings[name] = (",".join if name == "UV_FIND_LINKS" else " ".join)(listing)
    return {name: value for name, value in settings.items() if name not in os.environ}


def main():
    """Run every step that is not done yet."""
    venv, *extras = sys.argv[1:] or [HERE.parent / ".venv"]
    venv = Path(venv).absolute()
    if unknown := set(extras) - set(EXTRAS):
        sys.exit(f"There is no extra {unknown.pop()!r}; choose from {', '.join(EXTRAS)}.")
    check_python()
    install_debian_packages()
    done = venv / ".fingerprint"
    made_from, *installed = done.read_text().split() if done.exists() else [""]
    if made_from == fingerprint() and set(extras) <= set(installed):
        return
    lists = [*LISTS, *sorted({*extras, *installed}, key=EXTRAS.index)]
    done.unlink(missing_ok=True)
    python = make_venv(venv)
    (venv / "COLCON_IGNORE").touch()
    print("Installing Python packages (2 GB, with all extras 3) ...", flush=True)
    files = [argument for name in lists for argument in ("-r", HERE / f"{name}.txt")]
    if install_packages(python, ["-c", HERE / "constraints.txt", *files]):
        sys.exit("The installation failed; see above. Run the same command again to go on.")
    subprocess.run([python, HERE / "environment.py", venv], check=True)
    done.write_text(" ".join([fingerprint(), *lists[len(LISTS) :]]))
    print(f"Environment ready in {venv}")


if __name__ == "__main__":
    main()
