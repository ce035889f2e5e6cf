"""The executables of this package, as setup.py names them."""

from functools import partial

from spear_policy.shared.programs import run_program

policy_node = partial(run_program, "spear_policy.nodes.policy_node")
make_checkpoint = partial(run_program, "spear_policy.inference.make_checkpoint")
spear_bench = partial(run_program, "spear_policy.inference.bench")
model_info = partial(run_program, "spear_policy.model.model_info")
