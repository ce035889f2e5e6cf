"""Scenes by several processes: killed runs go on, and what comes out never depends on that."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from spear_policy.shared.files import MismatchError
from spear_policy.shared.progress import ProgressDisplay
from spear_training.annotation.accuracy.compare import read_truth
from spear_training.annotation.records import read_items
from spear_training.annotation.stages import JobError
from spear_training.annotation.synthetic.generate import (
    CARD,
    GENERATOR,
    Recipe,
    assemble,
    generate,
    part_file,
    write_scene,
)
from spear_training.annotation.synthetic.rendering import OffscreenRenderer

RECIPE = Recipe(3, "train")
SCENES = 4
PROGRAM = """\
from pathlib import Path
from rich.console import Console
from spear_policy.shared.progress import ProgressDisplay
from spear_training.annotation.synthetic.generate import generate
from spear_training.annotation.synthetic.generate import Recipe

if __name__ == "__main__":
    progress = ProgressDisplay(Console(), "scenes", "scenes")
    generate(Path({out!r}), {scenes}, Recipe(3, "train"), 1, progress)
"""


def run(folder, scenes=SCENES, recipe=RECIPE, jobs=2):
    """Generate without a bar; return how many scenes were made."""
    return generate(
        folder, scenes, recipe, jobs, ProgressDisplay(Console(quiet=True), "scenes", "scenes")
    )


def bytes_of(folder):
    """Return all files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path):
    program = tmp_path / "program.py"
    out = tmp_path / "killed"
    program.write_text(PROGRAM.format(out=str(out), scenes=SCENES))
    tag = {"SCENES_OF": str(out)}
    process = subprocess.Popen([sys.executable, str(program)], env=os.environ | tag)
    try:
        _wait_for(lambda: len(list(out.glob("parts/*.json"))) >= 2, process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    # The processes that draw end with it.
    _wait_for(lambda: not _processes_with(tag))
    complete = {path: path.stat().st_mtime_ns for path in sorted(out.glob("parts/*.json"))}
    assert 2 <= len(complete) < SCENES and not (out / "items.jsonl").exists()
    # A scene whose part somebody removes is made again.
    removed, _ = complete.popitem()
    removed.unlink()
    assert run(out, SCENES, jobs=1) == SCENES - len(complete)
    assert {path: path.stat().st_mtime_ns for path in complete} == complete
    assert run(out, SCENES) == 0
    renderer = OffscreenRenderer()
    for number in range(SCENES):
        write_scene(renderer, RECIPE, number, tmp_path / "whole")
    renderer.close()
    assemble(tmp_path / "whole", SCENES)
    assert {name: data for name, data in bytes_of(out).items() if name != CARD} == bytes_of(
        tmp_path / "whole"
    )
    items, truth = read_items(out / "items.jsonl"), read_truth(out / "truth.jsonl")
    assert [item.id[-6:] for item in items] == [f"{number:06d}" for number in range(SCENES)]
    assert {item.id[:-7] for item in items} <= {"table", "room"}
    assert list(truth) == [item.id for item in items]


def test_a_folder_keeps_its_recipe(tmp_path):
    (tmp_path / CARD).write_text(json.dumps({"generator": GENERATOR, "seed": 4, "split": "train"}))
    with pytest.raises(MismatchError, match="seed.*4.*3.*choose another --out"):
        run(tmp_path)


def test_a_damaged_part_is_named(tmp_path):
    (tmp_path / "parts").mkdir()
    for number in range(2):
        part_file(tmp_path, number).write_text('{"item": ')
    with pytest.raises(JobError, match="000000.json is damaged.*remove it"):
        run(tmp_path, scenes=2)


def test_a_machine_that_cannot_draw_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "77")
    with pytest.raises(JobError, match="no OpenGL to draw scenes with.*libegl1"):
        run(tmp_path, scenes=1, jobs=1)
    assert not list(tmp_path.glob("parts/*.json"))


def _wait_for(happened, process=None, limit_s=120.0):
    end = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < end, "it took too long"
        assert process is None or process.poll() is None, "the process has ended by itself"
        time.sleep(0.05)


def _processes_with(variables):
    """Return the living processes that have these variables."""
    wanted = [f"{name}={value}".encode() for name, value in variables.items()]
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if set(wanted) <= set(Path(f"/proc/{name}/environ").read_bytes().split(b"\0")):
                found.append(int(name))
    return found
