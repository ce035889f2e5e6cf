"""Take pictures out of recordings: OUT/items.jsonl is a list that `annotate run --items` takes.

A run that was interrupted goes on where it was. Several may work at once on parts of the same
folder (--shard); the last one writes the list.
"""

import argparse
import sys
from pathlib import Path

EXAMPLE = """\
examples:
  annotate import egoexo4d --release data/egoexo4d --out out/ego
  annotate import egoexo4d --release data/egoexo4d --out out/ego --videos 448 --every 5 \\
      --shard $SLURM_ARRAY_TASK_ID --num-shards 32
  annotate import bridge --input data/bridge_rlds --out out/bridge --every 20 --every-episode 4
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")

    ego = sources.add_parser(
        "egoexo4d",
        help="frames of Ego-Exo4D that have masks",
        description="Frames of Ego-Exo4D that have masks, with those masks as given objects.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = ego.add_argument
    add("--release", type=Path, required=True, help="folder with takes.json and annotations/")
    add("--scenarios", default="Cooking,Bike Repair", help='(default: "Cooking,Bike Repair")')
    add("--splits", default="train,val", help="of the relations annotations (default: train,val)")
    add("--views", choices=("exo", "ego", "both"), default="exo", help="(default: exo)")
    add("--videos", choices=("full", "448"), default="full", help="448: the downscaled ones")
    add("--every", type=int, default=1, help="each so many-th annotated frame (default: 1)")
    add("--full-size", action="store_true", help="keep the size of the video")
    _add_output(ego)

    bridge = sources.add_parser(
        "bridge",
        help="frames of BridgeData V2 in RLDS form",
        description="Frames of BridgeData V2 (RLDS), camera over the shoulder.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = bridge.add_argument
    add("--input", type=Path, required=True, help="folder with dataset_info.json")
    add("--split", default="train", help="(default: train)")
    add("--every", type=int, default=10, help="each so many-th picture (default: 10)")
    add("--every-episode", type=int, default=1, help="each so many-th episode (default: 1)")
    _add_output(bridge)


def _add_output(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for pictures and list")
    add("--shard", type=int, default=0, help="the part to do, 0 to N-1")
    add("--num-shards", type=int, default=1, metavar="N", help="parts of the work (default: 1)")


def run(options: argparse.Namespace) -> int:
    from spear_training.annotation.run_folder import Shard
    from spear_training.annotation.stages import JobError

    for name in ("every", "every_episode"):
        if getattr(options, name, 1) < 1:
            raise JobError(f"--{name.replace('_', '-')} must be 1 or more")
    shard = Shard(options.shard, options.num_shards)
    folder, units, make = (_egoexo4d if options.source == "egoexo4d" else _bridge)(options)
    rejected = folder.make(shard.part_of(list(units)), make, print)
    listed = folder.finish(list(units))
    if listed is None:
        print(f"{options.out}: this part is done; the list is written when the others are")
    else:
        print(f"{listed[0]} pictures, {listed[1]} rejected, in {options.out / 'items.jsonl'}")
        if listed[1]:
            reasons = options.out / "rejected.jsonl"
            print(f"why they were rejected is in {reasons}", file=sys.stderr)
    return 1 if rejected else 0


def _egoexo4d(options: argparse.Namespace):
    from spear_training.annotation.ego_exo4d import Selection, make_camera, read_release
    from spear_training.annotation.sources import FrameFolder

    selection = Selection(
        splits=_words(options.splits),
        scenarios=_words(options.scenarios),
        views=options.views,
        every=options.every,
        videos=options.videos,
        full_size=options.full_size,
    )
    units = read_release(options.release, selection)
    options.out.mkdir(parents=True, exist_ok=True)
    folder = FrameFolder(options.out, selection.settings)
    return folder, units, lambda name: make_camera(folder, name, units[name], selection)


def _bridge(options: argparse.Namespace):
    from spear_training.annotation.sources import FrameFolder, bridge_units, make_episode
    from spear_training.annotation.stages import JobError
    from spear_training.data.oxe.reader import BridgeReader
    from spear_training.data.reader import DataFileError

    try:
        reader = BridgeReader(options.input, options.split)
    except DataFileError as error:
        raise JobError(str(error)) from None
    units = bridge_units(reader, options.every_episode)
    options.out.mkdir(parents=True, exist_ok=True)
    settings = {
        "source": "bridge",
        "split": options.split,
        "every": options.every,
        "every_episode": options.every_episode,
    }
    folder = FrameFolder(options.out, settings)
    return (
        folder,
        units,
        lambda name: make_episode(folder, name, reader, units[name], options.every),
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
