"""Turn photographs into 3D annotations, and those into questions.

  annotate run         photographs -> 2D boxes -> masks -> points -> oriented 3D boxes
  annotate import      frames of Ego-Exo4D or BridgeData V2 as a list of pictures
  annotate world       rendered scenes with exact masks, depth and poses
  annotate questions   annotations -> questions and answers with 3D tokens
  annotate inspect     a page with pictures, masks, boxes, questions and answers
  annotate accuracy    how far the boxes are from known truth

`annotate --images ...` without a word before means `annotate run`. Each of them answers --help.
"""

import argparse
import importlib
import signal
import sys

EXAMPLE = """\
example, the photographs of a folder with Gemini, SAM 2 and MoGe:
  annotate --images photos --out out/annotations --detector gemini --segmenter sam2 \\
      --geometry moge
"""
PACKAGE = "spear_training.annotation.commands"
COMMANDS = {
    "run": "run",
    "import": "import_pictures",
    "world": "world",
    "questions": "questions",
    "inspect": "inspect",
    "accuracy": "accuracy",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand.

    Returns:
        0: all done; 1: done, and what failed is on record; 2: it could not go on;
        130: interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        _parser().print_help()
        return 0
    name = words.pop(0) if not words[0].startswith("-") else "run"
    if name not in COMMANDS:
        _parser().error(f"there is no {name!r}; choose from {', '.join(COMMANDS)}")
    # A module each, so that nobody waits for libraries of what was not asked for: `add_arguments`
    # describes the options, `run` returns an exit status or raises what is caught below.
    command = importlib.import_module(f"{PACKAGE}.{COMMANDS[name]}")
    parser = argparse.ArgumentParser(
        prog=f"annotate {name}",
        description=command.__doc__,
        epilog=command.EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    options = parser.parse_args(words)
    # A job that a script starts in the background ignores SIGINT by default.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from spear_policy.shared.files import MismatchError
    from spear_training.annotation.records import RecordError
    from spear_training.annotation.stages import JobError

    try:
        return command.run(options)
    except (JobError, RecordError, MismatchError) as error:
        print(f"annotate {name}: {error}", file=sys.stderr)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"annotate {name}: {where}{error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"\nannotate {name}: interrupted", file=sys.stderr)
        return 130
    return 2


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="annotate",
        usage="annotate [run | import | world | questions | inspect | accuracy] [options]",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


if __name__ == "__main__":
    sys.exit(main())
