"""Annotate photographs: 2D boxes and labels, masks, points, outlier removal, oriented 3D boxes.

Each picture becomes one line of OUT/annotations-*.jsonl, in the order of the list; one that
cannot be used says why. Records are written in shards of 256 pictures at most. The job may be
killed at any moment: the same command makes the shards that are missing. Several processes may
work on one job at once, on one machine or on many.
"""

import argparse
import json
import logging
import os
import sys
from pathlib import Path

from spear_training.annotation.stages import STAGES, JobError, PipelineSpec, stage_help, stage_names


def stage_settings(options: argparse.Namespace) -> dict[str, dict]:
    """Gather what the command line says of the stages: stage name -> names and values.

    Raises:
        JobError: an option is for a stage that was not chosen, or is not written as it must be.
    """
    chosen = (options.detector, options.segmenter, options.geometry)
    found: dict[str, dict] = {}

    def put(option: str, stages: tuple[str, ...], name: str, value) -> None:
        fitting = [stage for stage in stages if stage in chosen]
        if value is None:
            return
        if not fitting:
            raise JobError(f"{option} is for {' or '.join(stages)}, which was not chosen")
        for stage in fitting:
            found.setdefault(stage, {})[name] = value

    put("--phrases", ("grounding_dino",), "phrases", _phrases(options.phrases))
    put("--detector-model", ("gemini", "grounding_dino"), "model", options.detector_model)
    put("--segmenter-model", ("sam2",), "model", options.segmenter_model)
    put("--geometry-model", ("moge",), "model", options.geometry_model)
    put("--moge-version", ("moge",), "version", options.moge_version)
    networks = tuple(stage.name for stage in STAGES if stage.network)
    put("--device", networks, "device", options.device)
    put("--requests", ("gemini",), "requests_at_once", options.requests)
    if options.answers and options.detector != "gemini":
        raise JobError("--answers is for gemini, which was not chosen")
    if options.detector == "grounding_dino" and options.phrases is None:
        raise JobError('grounding_dino needs --phrases: what to look for, as "mug, red plate"')
    for words in options.set:
        stage, name, value = _setting(words)
        found.setdefault(stage, {})[name] = value
    return found


def _setting(words: str) -> tuple[str, str, object]:
    key, equals, value = words.partition("=")
    stage, point, name = key.partition(".")
    if not (stage and point and name and equals):
        raise JobError(f"--set {words}: write it as STAGE.NAME=VALUE")
    try:
        return stage, name, json.loads(value)
    except ValueError:
        return stage, name, value


def _phrases(words: str | None) -> tuple[str, ...] | None:
    if words is None:
        return None
    if words.startswith("@"):
        words = Path(words[1:]).read_text(encoding="utf-8").replace("\n", ",")
    return tuple(phrase.strip() for phrase in words.split(",") if phrase.strip())


EXAMPLE = """\
examples:
  annotate --images photos --out out/photos --detector gemini --segmenter sam2 --geometry moge
  annotate --images photos --out out/photos --detector grounding_dino --phrases "mug, plate" \\
      --segmenter sam2 --geometry moge
  annotate --items out/ego/items.jsonl --out out/ego/3d --detector given --segmenter given \\
      --geometry moge --shard $SLURM_ARRAY_TASK_ID --num-shards 64
  annotate --items instances_val2017.json --images val2017 --out out/coco --detector given \\
      --segmenter given --geometry moge
  annotate --items frames/items.jsonl --out out/rgbd --detector given --segmenter sam2 \\
      --geometry depth --set sam2.model=facebook/sam2.1-hiera-tiny
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("pictures: --images, --items or both").add_argument
    add("--images", type=Path, help="folder of pictures: all below it, or those of --items")
    add(
        "--items",
        type=Path,
        help="list of pictures (annotation/records.py), or COCO's instances_*.json; without "
        "--images, the pictures are beside it",
    )
    add(
        "--upright",
        action="store_true",
        help="objects, depth and intrinsics of --items belong to the pictures as EXIF turns them "
        "upright (default: to the pictures as stored)",
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for the records")

    add = parser.add_argument_group("stages").add_argument
    kinds = {
        "detector": "what finds and names objects",
        "segmenter": "what gives their pixels",
        "geometry": "what gives each pixel its point",
    }
    for kind, purpose in kinds.items():
        words = f"{purpose}: {stage_help(kind)}"
        add(f"--{kind}", required=True, choices=stage_names(kind), help=words)
    add("--phrases", help='what grounding_dino looks for: "mug, red plate", or @FILE, one a line')
    add("--detector-model", metavar="MODEL", help="of gemini or grounding_dino, in place of ours")
    add("--segmenter-model", metavar="MODEL", help="of sam2: a folder or a name on the hub")
    add("--geometry-model", metavar="MODEL", help="of moge: a file or a name on the hub")
    add("--moge-version", choices=("v1", "v2"), help="v1 (default): as in the paper; v2: metres")
    add("--device", help="of the networks: auto (default), cpu, cuda, cuda:1, ...")
    add("--requests", type=int, help="pictures that gemini is asked about at once (default: 8)")
    add("--answers", type=Path, help="folder that keeps gemini's answers (default: OUT/answers)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="STAGE.NAME=VALUE",
        help="any other setting of a stage, as gemini.temperature=0.2; OUT/run.json lists all",
    )

    add = parser.add_argument_group("job").add_argument
    add("--shard", type=int, help="the part of the list to do, 0 to N-1")
    add("--num-shards", type=int, default=1, metavar="N", help="parts of the list (default: 1)")
    add("--retry-failed", action="store_true", help="annotate again what failed before")
    add(
        "--max-failures-in-a-row",
        type=int,
        default=25,
        metavar="N",
        help="then stop, as something is wrong (default: 25; 0: never)",
    )
    add("--executor", choices=("local", "ray"), default="local", help="(default: local)")
    add("--ray-address", help='of a running cluster, or "auto" (default: one on this machine)')
    add("--workers", type=int, default=1, help="sets of stages on Ray (default: 1)")
    add("--cpus-per-worker", type=float, default=1.0, help="(default: 1)")
    add("--gpus-per-worker", type=float, default=0.0, help="may be a fraction (default: 0)")


def run(options: argparse.Namespace) -> int:
    from dataclasses import replace
    from functools import partial

    from rich.console import Console

    from spear_policy.shared.progress import ProgressDisplay
    from spear_training.annotation.coco_lists import read_list
    from spear_training.annotation.job import (
        AnnotationJob,
        RayOptions,
        annotate_here,
        annotate_on_ray,
        describe,
        run_job,
    )
    from spear_training.annotation.records import LeftOut, photograph_items
    from spear_training.annotation.run_folder import Shard, agree_on_run, shards_for

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if options.shard is None and options.num_shards > 1:
        raise JobError(f"--num-shards {options.num_shards} needs --shard: which of them to do")
    part = Shard(options.shard or 0, options.num_shards)
    if not (options.images or options.items):
        raise JobError("--images FOLDER or --items FILE must say which pictures")
    if options.upright and not options.items:
        raise JobError("--upright is about the objects, depth and intrinsics of --items")
    root = options.images or options.items.parent
    spec = PipelineSpec(
        # Absolute, for workers that begin in another folder.
        root=root.resolve(),
        detector=options.detector,
        segmenter=options.segmenter,
        geometry=options.geometry,
        answers=(options.answers or options.out / "answers").resolve(),
        settings=stage_settings(options),
    )
    pipeline = spec.build()
    annotate = partial(annotate_here, pipeline)
    if options.executor == "ray":
        ray_options = RayOptions(
            options.ray_address, options.workers, options.cpus_per_worker, options.gpus_per_worker
        )
        annotate = partial(annotate_on_ray, spec, ray_options)
    if options.items:
        items = read_list(options.items)
        if options.upright:
            items = [replace(item, upright=True) for item in items]
    else:
        left_out = LeftOut()
        items = photograph_items(options.images, options.out, left_out)
        if left_out:
            print(f"annotate run: {options.images}: {left_out}", file=sys.stderr)
    options.out.mkdir(parents=True, exist_ok=True)
    num_shards = agree_on_run(
        options.out,
        pipeline.settings,
        items,
        root,
        shards_for(len(items), part.count),
        str(options.items or options.images),
    )["num_shards"]
    job = AnnotationJob(
        options.out,
        items,
        num_shards,
        part,
        options.retry_failed,
        options.max_failures_in_a_row,
    )
    console = Console()
    name = "annotate" if part.count == 1 else f"part {part.index} of {part.count}"
    try:
        with ProgressDisplay(console, name, "pictures") as progress:
            counts = run_job(job, annotate, progress)
    except KeyboardInterrupt:
        print(
            "\nannotate run: interrupted; finished shards stay, the same command makes the others",
            file=sys.stderr,
        )
        if pipeline.parallel > 1:  # threads may wait for a service, and Python would for them
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(130)
        return 130
    console.print(f"{describe(counts)}, in {options.out}", markup=False, soft_wrap=True)
    return 1 if counts["failed"] else 0
