"""How many files a run enters: what a reader opens who follows it through the suite.

python3 test/test_walks.py prints every walk with its files; docs/architecture.md has the figures.
"""

import gc
import sys
from pathlib import Path

import pytest
from desk_picture import desk_folder, desk_item
from import_fixture import import_quietly
from walk_tracer import walk

from spear_policy.inference.spear_engine import SpearEngine, load
from spear_policy.model.coordinate_bins import CoordinateBins
from spear_training.annotation.records import Annotation
from spear_training.annotation.stages import PipelineSpec
from spear_training.data.loader import BatchSource, FrameSampleReader, batches
from spear_training.data.oxe.table import load_table
from spear_training.data.preparation import Preparation
from spear_training.data.sources import OxeSource
from spear_training.data.statistics.motion import MotionStatistics
from spear_training.data.statistics.normalisation import normalisation
from spear_training.data.store.reader import FrameStore, episode_motion
from spear_training.vqa.dataset import make_example, rendered, text_grammar
from spear_training.vqa.pairs import QuestionSettings

BINS = CoordinateBins.normal(0.4, 1.0, -3.0, 4.0, 1024)
CHUNK_TO_ROBOT = (
    "spear_bringup/test/test_franka_driver.py::"
    "test_a_chunk_enters_at_most_nine_files_on_its_way_to_the_robot"
)


def test_a_checkpoint_becomes_an_engine(checkpoint):
    with walk() as followed, followed.on():
        SpearEngine.from_folder(str(checkpoint), "franka", device="cpu")
    followed.show("checkpoint to engine", most=15)


def test_an_image_becomes_a_chunk(checkpoint, ros_domain):
    from ros_fixture import ros

    with ros():
        followed = policy_walk(checkpoint)
    gc.collect()  # rclpy keeps a closed node's shared memory until its cycles are collected
    for path in [path for path in followed.files if "/model/" in path]:
        del followed.files[path]
    followed.show("image topic to chunk, outside model/", most=16)


def policy_walk(checkpoint):
    """Follow a policy node from the images that come to the chunks that it publishes."""
    from policy_fixture import SIZES, policy_fixture

    with (
        walk() as followed,
        policy_fixture(None, engine="spear", checkpoint=str(checkpoint), device="cpu") as bench,
    ):
        world = bench.world
        world.noisy = set(SIZES)
        world.instruct("put the red cube on the plate")
        world.wait_for_chunks(2)  # what is done once is done
        with followed.on():
            world.wait_for_chunks(4)
    return followed


def test_a_photograph_becomes_a_question():
    spec = PipelineSpec(desk_folder(), "given", "given", "depth")
    with walk() as followed, followed.on():
        record = spec.build().annotate(desk_item())
        example = make_example(Annotation.from_json(record.to_json()), 0, QuestionSettings(), BINS)
        questions = rendered(example, text_grammar(BINS))
    assert questions
    followed.show("photograph to question", most=28)


def test_an_rlds_episode_becomes_a_batch(bridge_rlds_dir, checkpoint, tmp_path):
    policy = load(checkpoint)
    with walk() as followed, followed.on():
        source = OxeSource(bridge_rlds_dir, load_table()["bridge"])
        import_quietly(source, tmp_path / "store", "0-2")
        store = FrameStore(tmp_path / "store")
        read = BatchSource({"bridge": FrameSampleReader(store)}, [1.0], batch_size=4, seed=0)
        batch = next(batches(read, 0, 1, workers=0))
    motion = MotionStatistics()
    for episode in range(len(store.episodes)):
        moved = episode_motion(store, episode)
        motion.add(str(episode), moved.measured, moved.measured, moved.commands)
    statistics = normalisation({"bridge": motion}, {"bridge": 1.0})
    prepare = Preparation(policy.model.config, policy.tokenizer, read.names, statistics)
    with walk() as prepared, prepared.on():
        prepare(batch)
    followed.files |= prepared.files
    followed.show("RLDS episode to batch", most=26)


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    sys.exit(pytest.main(["-q", "-s", __file__, f"{root}/{CHUNK_TO_ROBOT}"]))
