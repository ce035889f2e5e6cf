"""The command-line options that say what is imported and how it is read."""

import argparse
from pathlib import Path

from spear_training.data.bags.bag_reader import SUCCESS, BagRules
from spear_training.data.importing.sources import BagSource, LeRobotSource, OxeSource, Source
from spear_training.data.lerobot.keys import PRESETS, load_keys
from spear_training.data.oxe.table import find_row, load_table

ANY = "any"
# Which options each format has; the first is needed where it is in _NEEDED.
_OPTIONS = {
    "bag": ("outcomes", "namespace"),
    "bridge_rlds": ("split",),
    "lerobot": ("keys",),
    "oxe": ("row", "table", "subset", "split"),
}
_NEEDED = {"oxe": "row"}
FORMATS = tuple(_OPTIONS)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    add = parser.add_argument_group("oxe: Open X-Embodiment in RLDS form").add_argument
    add("--row", help="of the mixture table, such as bridge")
    add("--table", type=Path, metavar="MINE.yaml", help="what you confirmed or changed in it")
    add("--subset", metavar="NAME", help="a part that the row names, such as single_kitchen_sink")
    add("--split", help="of the data set (default: train)")
    add = parser.add_argument_group("bag: trials recorded by SPEAR").add_argument
    add("--outcomes", help=f'of the trials: "{ANY}", or like SUCCESS,UNKNOWN (default: {SUCCESS})')
    add("--namespace", help="of the robot, if bags hold two")
    add = parser.add_argument_group("lerobot: LeRobotDataset v2.0, v2.1, v3.0").add_argument
    presets = ", ".join(PRESETS)
    add("--keys", help=f"which columns hold what: a YAML file, or {presets}; none for our stores")


def option_problem(options: argparse.Namespace) -> str | None:
    """What is missing, or does not belong to the format, in a sentence; None if all is well."""
    own = _OPTIONS[options.format]
    for name in dict.fromkeys(name for names in _OPTIONS.values() for name in names):
        if getattr(options, name) is not None and name not in own:
            homes = [format_ for format_, names in _OPTIONS.items() if name in names]
            return f"--{name} is for --format {' and '.join(homes)}, not for {options.format}"
    needed = _NEEDED.get(options.format)
    if needed and getattr(options, needed) is None:
        return f"--format {options.format} needs --{needed}"
    return None


def make_source(options: argparse.Namespace) -> Source:
    """What the options describe.

    Raises:
        DataFileError: the table or the file of keys cannot be used, or there is no such row.
    """
    folder = options.input
    if options.format == "bag":
        return BagSource(folder, BagRules(_outcomes(options.outcomes), options.namespace))
    if options.format == "lerobot":
        return LeRobotSource(folder, load_keys(options.keys) if options.keys else None)
    rows, split = load_table(options.table), options.split or "train"
    if options.format == "bridge_rlds":
        return OxeSource(folder, find_row(rows, "bridge"), split, any_name=True)
    return OxeSource(folder, find_row(rows, options.row), split, options.subset)


def _outcomes(words: str | None) -> tuple[str, ...] | None:
    if words == ANY:
        return None
    if words is None:
        return (SUCCESS,)
    return tuple(word.strip().upper() for word in words.split(",") if word.strip())
