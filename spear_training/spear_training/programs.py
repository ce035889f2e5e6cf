"""The executables of this package, as setup.py names them."""

from functools import partial

from spear_policy.shared.programs import run_program

annotate = partial(run_program, "spear_training.annotation.annotate")
bench_data = partial(run_program, "spear_training.data.store.bench")
import_episodes = partial(run_program, "spear_training.data.import_episodes")
spear_stats = partial(run_program, "spear_training.data.stats")
store_report = partial(run_program, "spear_training.data.report")
replay_plot = partial(run_program, "spear_training.data.replay_plot")
make_lookup = partial(run_program, "spear_training.data.store.reader")
inspect_rlds = partial(run_program, "spear_training.data.rlds")
inspect_row = partial(run_program, "spear_training.data.oxe.inspect_row")
train = partial(run_program, "spear_training.train.command")
evaluate = partial(run_program, "spear_training.evaluation.command")
