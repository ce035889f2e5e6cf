"""Which executables there are, and how they start.

An executable's module is imported when it runs, so that a library that is not installed is said in
one sentence, with the extra that has it, and not by a traceback.
"""

import sys
from importlib import import_module
from pathlib import Path

# Executable -> module with its main(). setup.py of each package names those that it installs.
PROGRAMS = {
    "policy_node": "spear_policy.nodes.policy_node",
    "spatial_query": "spear_policy.nodes.spatial_query",
    "make_checkpoint": "spear_policy.inference.make_checkpoint",
    "spear_bench": "spear_policy.inference.bench",
    "model_info": "spear_policy.model.model_info",
    "franka_driver": "spear_bringup.nodes.franka_driver",
    "sim_world": "spear_bringup.nodes.sim_world",
    "trial_recorder": "spear_bringup.nodes.trial_recorder",
    "lifecycle_manager": "spear_bringup.nodes.lifecycle_manager",
    "spear_demo": "spear_bringup.nodes.demo",
    "trial_report": "spear_bringup.trials.report",
    "bag_repair": "spear_bringup.trials.bag_repair",
    "annotate": "spear_training.annotation.annotate",
    "bench_data": "spear_training.data.store.bench",
    "import_episodes": "spear_training.data.import_episodes",
    "spear_stats": "spear_training.data.stats",
    "store_report": "spear_training.data.report",
    "replay_plot": "spear_training.data.replay_plot",
    "make_lookup": "spear_training.data.store.reader",
    "inspect_rlds": "spear_training.data.rlds",
    "inspect_row": "spear_training.data.oxe.inspect_row",
    "train": "spear_training.train.command",
    "evaluate": "spear_training.evaluation.command",
}
# Requirements by purpose: `requirements/EXTRA.txt`, and extras of the same name in setup.py. The
# first that the module's name begins with counts.
EXTRAS = {
    "spear_training.annotation": "annotation",
    "spear_training": "training",
    "spear": "robot",
}
# What comes with ROS, by apt or by the wheels of `make setup`, and never with an extra.
_ROS = ("rclpy", "launch", "launch_ros", "ament_index_python", "domain_coordinator")


def main() -> int | None:
    """Run the executable that was called; returns its exit status."""
    return run_program(PROGRAMS[Path(sys.argv[0]).stem])


def run_program(module: str) -> int | None:
    """Import a module and run its main(); returns what that returns.

    Args:
        module: dotted name, such as "spear_training.data.stats".

    Returns:
        main's exit status; 2 where a library is missing, which is said on stderr.
    """
    try:
        return import_module(module).main()
    except ModuleNotFoundError as error:
        sentence = missing_library(error, module)
        if not sentence:
            raise
        print(sentence, file=sys.stderr)
        return 2


def missing_library(error: ModuleNotFoundError, module: str) -> str:
    """Which library `module` lacks and how to get it; empty when a module of ours is missing."""
    library = (error.name or "").partition(".")[0]
    if not library or library in ("spear_policy", "spear_bringup", "spear_training"):
        return ""
    needs = f"{module} needs the Python package {library}, which is not installed"
    if library in _ROS or library.endswith(("_msgs", "_interfaces")):
        return f"{needs} or not sourced: source ROS 2 Jazzy and install/setup.bash of the workspace"
    extra = next(name for prefix, name in EXTRAS.items() if module.startswith(prefix))
    return (
        f"{needs}: install the extra {extra!r}, with ROS from apt by `pip install -c "
        f"requirements/constraints-apt.txt -r requirements/{extra}.txt` in the environment of the "
        f"workspace, otherwise by `make setup EXTRAS={extra}`"
    )
