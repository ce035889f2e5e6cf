r"""evaluate: how good a trained model is on data that it has not seen.

Example: ros2 run spear_training evaluate vlm --checkpoint out/vlm/final \
             --pictures out/held/annotations --trained-on world=out/world/annotations \
             --mixture world_boxes --out out/vlm/accuracy.html

`vlm` asks a model of stage 1 about annotated pictures and writes a page, with the same numbers as
JSON beside it. Exit status: 0 done, 130 after Ctrl-C, 2 it cannot, and says why.
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
    return _vlm(parser.parse_args(arguments))


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


if __name__ == "__main__":
    sys.exit(main())
