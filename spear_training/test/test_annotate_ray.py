"""The stages on Ray: the records of a run in one process, failures and the job's end included."""

import os
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
from annotate_stages import ColourSpec, write_pictures
from rgbd_list import write_list
from rich.console import Console

from spear_policy.shared.progress import ProgressDisplay
from spear_training.annotation import run_folder
from spear_training.annotation.annotate import main
from spear_training.annotation.job import (
    AnnotationJob,
    RayOptions,
    ShardWorker,
    annotate_on_ray,
    run_job,
)
from spear_training.annotation.records import Item
from spear_training.annotation.run_folder import read_annotations
from spear_training.annotation.stages import JobError

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install ray")
OPTIONS = RayOptions(workers=2, cpus_per_worker=0.5)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Start Ray once, small, and see to it that nothing of it is left."""
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=100_000_000,
        logging_level="warning",
        runtime_env={"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}},
    )
    yield
    ray.shutdown()


@pytest.fixture
def job(tmp_path):
    """Return a function that runs a description of a pipeline on pictures of these names."""

    def run(spec, names, options=OPTIONS, num_shards=2):
        (tmp_path / "out").mkdir()
        items = write_pictures(tmp_path / "pictures", names)
        annotate = partial(annotate_on_ray, spec, options)
        with ProgressDisplay(Console(), "annotate", "pictures") as progress:
            return run_job(AnnotationJob(tmp_path / "out", items, num_shards), annotate, progress)

    return run


@pytest.mark.slow
def test_ray_makes_the_same_records_as_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "SHARD_PICTURES", 5)
    path = write_list(tmp_path / "list", 12)
    (tmp_path / "list" / "003.png").write_bytes(b"damaged")
    (tmp_path / "list" / "depth" / "011.png").unlink()
    stages = ["--detector", "given", "--segmenter", "given", "--geometry", "depth"]
    more = ["--executor", "ray", "--workers", "2", "--cpus-per-worker", "0.5"]
    for out, words in (("alone", []), ("ray", more)):
        assert main(["--items", str(path), "--out", str(tmp_path / out), *stages, *words]) == 1
    found, alone = (
        [replace(record, seconds={}) for record in read_annotations(tmp_path / out)]
        for out in ("ray", "alone")
    )
    assert found == alone
    assert [record.status for record in found].count("failed") == 2


@pytest.mark.slow
def test_a_job_that_cannot_go_on_stops_with_the_workers_sentence(job, tmp_path):
    with pytest.raises(JobError, match="the test's key is missing: set it"):
        job(ColourSpec(tmp_path / "pictures"), ["0", "1 hopeless", "2"])


@dataclass(frozen=True)
class Unbuildable:
    """A description that only the workers cannot build."""

    error: Exception

    def build(self):
        """Fail."""
        raise self.error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (JobError("there is no network here"), "there is no network here"),
        (OSError("no disk"), "a worker cannot build the stages (OSError: no disk)"),
    ],
)
def test_a_worker_that_cannot_build_the_stages_says_why(error, words):
    assert ShardWorker(Unbuildable(error)).annotate([Item("a", "a.png")]) == ([], words)


def test_workers_that_find_no_room_are_refused_in_place_of_waiting(job, tmp_path):
    with pytest.raises(JobError, match="2 workers with 0.5 GPU each do not fit: the cluster has 0"):
        job(ColourSpec(tmp_path), ["0"], replace(OPTIONS, gpus_per_worker=0.5))
    with pytest.raises(JobError, match="--workers is 0"):
        replace(OPTIONS, workers=0)


def test_without_ray_the_sentence_says_how_to_install_it(job, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(JobError, match="pip install ray"):
        job(ColourSpec(tmp_path), ["0"])
