"""From the command line to the settings of the stages."""

import argparse
import json
from pathlib import Path

from spear_training.annotation.frame import JobError
from spear_training.annotation.job.choices import NETWORKS


def stage_options(options: argparse.Namespace) -> dict[str, dict]:
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
    put("--device", NETWORKS, "device", options.device)
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
