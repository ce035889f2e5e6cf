"""Build description of spear_bringup."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "spear_bringup"


def shared_files():
    """List what goes to share/: the index marker, package.xml and the data folders."""
    files = [
        ("share/ament_index/resource_index/packages", ["resource/" + NAME]),
        ("share/" + NAME, ["package.xml"]),
    ]
    for folder in ("launch", "config", "params", "env", "rviz", "foxglove"):
        found = sorted(str(path) for path in Path(folder).glob("*.*") if path.is_file())
        if found:
            files.append(("share/" + NAME + "/" + folder, found))
    return files


setup(
    name=NAME,
    version="0.1.0",
    description="The robot side of SPEAR: gate, drivers, simulated worlds, trials, launch files.",
    maintainer="SPEAR maintainers",
    maintainer_email="spear-maintainers@users.noreply.github.com",
    license="Apache-2.0",
    packages=find_packages(exclude=["test", "test.*"]),
    package_data={NAME: ["**/*.xml", "**/*.html", "**/*.css", "**/*.js", "**/*.yaml", "**/*.json"]},
    data_files=shared_files(),
    install_requires=["setuptools"],
    extras_require={
        "test": ["pytest"],
        "robot": [
            "franky-control",
            "franky-sim",
            "mujoco",
            "pin",
            "rosbags",
            "mcap",
            "mcap-ros2-support",
            "lz4",
            "zstandard",
            "av",
        ],
    },
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "franka_driver = spear_policy.shared.programs:main",
            "sim_world = spear_policy.shared.programs:main",
            "trial_recorder = spear_policy.shared.programs:main",
            "lifecycle_manager = spear_policy.shared.programs:main",
            "spear_demo = spear_policy.shared.programs:main",
            "trial_report = spear_policy.shared.programs:main",
            "bag_repair = spear_policy.shared.programs:main",
        ],
    },
)
