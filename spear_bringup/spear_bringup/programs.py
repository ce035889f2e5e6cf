"""The executables of this package, as setup.py names them."""

from functools import partial

from spear_policy.shared.programs import run_program

franka_driver = partial(run_program, "spear_bringup.nodes.franka_driver")
sim_world = partial(run_program, "spear_bringup.nodes.sim_world")
trial_recorder = partial(run_program, "spear_bringup.nodes.trial_recorder")
lifecycle_manager = partial(run_program, "spear_bringup.nodes.lifecycle_manager")
spear_demo = partial(run_program, "spear_bringup.nodes.demo")
trial_report = partial(run_program, "spear_bringup.trials.report")
bag_repair = partial(run_program, "spear_bringup.trials.bag_repair")
