r"""evaluate: how good a trained model is on data that it has not seen.

Example: ros2 run spear_training evaluate vlm --checkpoint out/vlm/final \
             --pictures out/held/annotations --trained-on world=out/world/annotations \
             --mixture world_boxes --out out/vlm/accuracy.html
         ros2 run spear_training evaluate open_loop --checkpoint out/vla/final \
             --mixture held_out.yaml --out out/vla/open_loop.html

`vlm` asks a model of stage 1 about annotated pictures; `open_loop` compares a policy's chunks with
recorded ones. Each writes a page, with the same numbers as JSON beside it. Exit status: 0 done, 130
after Ctrl-C, 2 it cannot, and says why.
"""

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    vlm = kinds.add_parser("vlm", help="a model of stage 1: questions about pictures")
    vlm.add_argument("--checkpoint", type=Path, required=True, help="folder that `train` exported")
    vlm.add_argument("--pictures", type=Path, required=True, help="folder of `annotate run`")
    vlm.add_argument(
        "--trained-on",
        nargs="+",
        required=True,
        metavar="NAME=FOLDER",
        help="the training's datasets, for the baselines",
    )
    vlm.add_argument("--mixture", required=True, help="what is asked: a name of mixtures.yaml")
    vlm.add_argument("--out", type=Path, required=True, help="page to write")
    vlm.add_argument("--metrics", type=Path, help="metrics.jsonl of the training, for curves")
    vlm.add_argument("--most", type=int, help="pictures to ask about (default: all)")
    vlm.add_argument("--seed", type=int, default=0, help="of the questions (default: 0)")
    vlm.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    loop = kinds.add_parser("open_loop", help="a policy: chunks against recorded ones")
    loop.add_argument("--checkpoint", type=Path, required=True, help="folder of a policy")
    loop.add_argument("--mixture", required=True, help='"oxe" or a YAML file, see data/mixture.py')
    loop.add_argument("--root", type=Path, help="folder of the stores, for oxe")
    loop.add_argument("--only", nargs="+", default=(), help="parts to use (default: all)")
    loop.add_argument("--statistics", type=Path, help="statistics.json (default: the card's)")
    loop.add_argument("--out", type=Path, required=True, help="page to write")
    loop.add_argument("--metrics", type=Path, help="metrics.jsonl of the training, for curves")
    loop.add_argument("--samples", type=int, default=512, help="moments (default: 512)")
    loop.add_argument("--steps", type=int, help="of denoising (default: the checkpoint's)")
    loop.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    options = parser.parse_args(arguments)
    return {"vlm": _vlm, "open_loop": _open_loop}[options.kind](options)


def _vlm(options) -> int:
    # Here, so that --help does not wait for torch.
    import json

    from rich.console import Console

    from spear_policy.model.answers import AnswerGrammar
    from spear_policy.model.checkpoint import CheckpointError, load_weights
    from spear_policy.model.coordinate_bins import BINS_FILE
    from spear_policy.shared.files import MismatchError, write_atomically
    from spear_policy.shared.progress import ProgressDisplay
    from spear_training.annotation.stages import JobError, StageError
    from spear_training.evaluation.vlm_accuracy import Baselines, vlm_accuracy
    from spear_training.evaluation.vlm_page import write_page
    from spear_training.train.metrics import read_metrics
    from spear_training.vqa.bins import FittedBins
    from spear_training.vqa.dataset import MixtureSet, VqaSet, mixture

    console = Console(stderr=True)
    try:
        model, tokenizer = load_weights(options.checkpoint, options.device)
        bins = FittedBins.load(options.checkpoint / BINS_FILE).bins
        mixed = mixture(options.mixture)
        trained_on = dict(each.partition("=")[::2] for each in options.trained_on)
        folders = {name: Path(folder) for name, folder in trained_on.items()}
        baselines = Baselines.fit(MixtureSet(mixed, folders, options.seed, bins))
        pictures = VqaSet(options.pictures, mixed.settings, bins)
        metrics = read_metrics(options.metrics) if options.metrics else ()
        with ProgressDisplay(console, "evaluate", "pictures") as display:
            display.begin(min(len(pictures), options.most or len(pictures)))
            found = vlm_accuracy(
                model,
                AnswerGrammar(tokenizer, bins),
                pictures,
                baselines,
                most=options.most,
                seed=options.seed,
                on_progress=display.advance,
            )
        name = options.checkpoint.resolve()
        write_page(options.out, f"{name.parent.name}/{name.name}", found, pictures, metrics)
        numbers = json.dumps(found.numbers(), indent=1)
        write_atomically(options.out.with_suffix(".json"), numbers + "\n")
    except (CheckpointError, JobError, MismatchError, StageError, ValueError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("evaluate: ended, nothing is written", file=sys.stderr)
        return 130
    print(f"{options.out}: {len(found.answered)} answers")
    return 0


def _open_loop(options) -> int:
    import json

    from spear_policy.inference.spatial_model import RECORD_FILE
    from spear_policy.inference.spear_engine import load
    from spear_policy.shared.files import write_atomically
    from spear_training.data.mixture import load_mixture
    from spear_training.data.reader import DataFileError
    from spear_training.data.statistics.normalisation import read_normalisation
    from spear_training.evaluation.open_loop import open_loop_of
    from spear_training.evaluation.open_loop_page import write_page
    from spear_training.train.metrics import read_metrics

    try:
        policy = load(options.checkpoint, device=options.device)
        record = options.checkpoint / RECORD_FILE
        trained = json.loads(record.read_text()) if record.is_file() else {}
        moments = open_loop_of(
            policy,
            load_mixture(options.mixture, options.root, only=options.only),
            options.samples,
            robots=trained.get("config", {}).get("task", {}).get("robots", {}),
            normalisation=read_normalisation(options.statistics) if options.statistics else None,
            device=options.device,
        )
        found = moments.errors(policy.model, steps=options.steps, probes=True)
        metrics = read_metrics(options.metrics) if options.metrics else ()
        write_page(options.out, policy.card.checkpoint_id, found, metrics)
        numbers = json.dumps(found.numbers(), indent=1)
        write_atomically(options.out.with_suffix(".json"), numbers + "\n")
    except (DataFileError, ValueError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("evaluate: ended, nothing is written", file=sys.stderr)
        return 130
    print(f"{options.out}: {len(found.dataset)} moments")
    return 0


if __name__ == "__main__":
    sys.exit(main())
