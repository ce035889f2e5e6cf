"""The policy node with the learned engine `spear` over real DDS; the weights are random."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from policy_fixture import SIZES, policy_fixture, refused
from rclpy.parameter import Parameter
from ros_fixture import ros, wait

from spear_policy.geometry.poses import Pose
from spear_policy.inference.engine import Observation
from spear_policy.inference.make_checkpoint import untrained_policy
from spear_policy.inference.spear_engine import SpearEngine, load, save
from spear_policy.model.config import preset
from spear_policy.nodes.messages import chunk_from_msg, stamp_to_s

TASK = "put the red cube on the plate"


@pytest.fixture(scope="module", autouse=True)
def _ros(ros_domain):
    with ros():
        yield


@pytest.fixture
def copied(checkpoint, tmp_path):
    """A copy of it that a test may break."""
    return shutil.copytree(checkpoint, tmp_path / "tiny")


def spear_bench(folder, **parameters):
    return policy_fixture(None, engine="spear", checkpoint=str(folder), device="cpu", **parameters)


def change_card(folder, **values):
    card = json.loads((folder / "card.json").read_text()) | values
    card = {key: value for key, value in card.items() if value is not None}
    (folder / "card.json").write_text(json.dumps(card))


# Work ---------------------------------------------------------------------------------------------


def test_a_checkpoint_becomes_chunks_that_are_anchored_at_the_image_and_say_all_of_themselves(
    checkpoint,
):
    # No slack: the pose at the image's stamp is to lie between two states.
    with spear_bench(checkpoint, up=False, state_slack_s=0.0) as bench:
        world = bench.world
        world.noisy = set(SIZES)
        world.move(0.05)
        bench.up()
        world.instruct(TASK)
        chunks = world.wait_for_chunks(4)
        heard_s = world.now_s()
        anchors = {stamp_to_s(c.header.stamp): chunk_from_msg(c).anchor_measured for c in chunks}
        wanted = {stamp_s: world.position_x_m(stamp_s) for stamp_s in anchors}
        status = world.wait_for_state("RUNNING", "following")
    card = load(checkpoint).card
    ids = [chunk.chunk_id for chunk in chunks]
    assert ids == sorted(set(ids)) and len({chunk.source_id for chunk in chunks}) == 1
    for chunk in chunks:
        assert (chunk.instruction, chunk.instruction_id) == (TASK, 1)
        assert chunk.checkpoint_id == card.checkpoint_id == "tiny-untrained-0"
        assert chunk.statistics_hash == card.statistics_hash
        assert (chunk.header.frame_id, chunk.steps[0].rotation_frame_id) == (
            "franka_base",
            "franka_ee",
        )
        assert stamp_to_s(chunk.dt) == pytest.approx(0.2) and len(chunk.steps) == 5
        stamp_s = stamp_to_s(chunk.header.stamp)
        assert stamp_s in world.image_stamps_s
        assert anchors[stamp_s][0] == pytest.approx(wanted[stamp_s], abs=1e-6)
        commanded = chunk_from_msg(chunk).anchor_commanded[0]
        assert commanded == pytest.approx(wanted[stamp_s] + 0.01, abs=1e-6)
        latencies = (chunk.image_age, chunk.preprocess_time, chunk.inference_time)
        assert min(map(stamp_to_s, latencies)) > 0
        assert sum(map(stamp_to_s, latencies)) < heard_s - stamp_s + 1e-3
    assert (status.engine, status.statistics_hash) == ("spear", card.statistics_hash)
    assert stamp_to_s(status.inference_p99) >= stamp_to_s(status.inference_p50) > 0


def test_the_chunks_on_the_wire_are_the_answers_of_the_model(checkpoint):
    with spear_bench(checkpoint, sampling_seed=5) as bench:
        bench.world.instruct(TASK)
        chunks = bench.world.wait_for_chunks(2)
    engine = SpearEngine(load(checkpoint), "franka", seed=5)
    engine.reset(TASK)
    images = {n: np.full((h, w, 3), [200, 100, 50], np.uint8) for n, (w, h) in SIZES.items()}
    measured, commanded = (Pose([x, 0, 0.3], [1, 0, 0, 0]) for x in (0.5, 0.51))
    seen = Observation(0.0, measured, commanded, 0.75, TASK, images)
    # The scene stands still, so the n-th answer is known; the HOLD that begins had the first id.
    answers = [engine.infer(seen) for _ in range(chunks[-1].chunk_id - 1)]
    for message in chunks:
        chunk, answer = chunk_from_msg(message), answers[message.chunk_id - 2]
        np.testing.assert_allclose(chunk.translations_m, answer.translations_m, atol=1e-6)
        np.testing.assert_allclose(chunk.rotations_xyzw, answer.rotations_xyzw, atol=1e-6)
        np.testing.assert_array_equal(chunk.gripper_openings, answer.gripper_openings)


def test_a_robot_without_a_wrist_camera_is_served(checkpoint):
    with spear_bench(checkpoint, up=False, absent_cameras="wrist") as bench:
        bench.world.cameras = {"external"}
        bench.up()
        bench.world.instruct(TASK)
        assert len(bench.world.wait_for_chunks(1)[0].steps) == 5


# What it refuses to work with ---------------------------------------------------------------------


def cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def narrow_range(folder):
    statistics = json.loads((folder / "card.json").read_text())["statistics"]
    statistics["translation"]["high"] = statistics["translation"]["low"]
    change_card(folder, statistics=statistics)


@pytest.mark.parametrize(
    ("damage", "parameters", "words"),
    [
        (shutil.rmtree, {}, ("tiny/card.json", "there is no such file", "copy the whole folder")),
        (cut_weights, {}, ("model.safetensors", "copy")),
        (lambda folder: change_card(folder, statistics=None), {}, ("card.json", "statistics")),
        (narrow_range, {}, ("card.json", "statistics.translation")),
        (
            lambda folder: change_card(folder, dt_s=0.1),
            {},
            ("steps every 0.1 s and step_dt_s is 0.2 s", "set step_dt_s"),
        ),
        (None, {"robot": "panda"}, ("no robot 'panda'", "only franka, widowx", "set the robot")),
        (None, {"absent_cameras": "left"}, ("no camera 'left'", "external, wrist")),
        (None, {"cuda_graphs": True}, ("CUDA graphs need a GPU",)),
    ],
)
def test_a_checkpoint_that_does_not_do_fails_configure_with_the_fix(
    copied, damage, parameters, words
):
    if damage:
        damage(copied)
    with spear_bench(copied, up=False, **parameters) as bench:
        refused(bench, "configure", *words)


def test_without_a_checkpoint_it_asks_for_one_and_takes_it(checkpoint):
    with policy_fixture(None, up=False, engine="spear", device="cpu") as bench:
        refused(bench, "configure", "needs checkpoint; make_checkpoint makes one")
        bench.node.set_parameters([Parameter("checkpoint", value=str(checkpoint))])
        bench.up()


def test_a_camera_that_no_graph_has_fails_configure_by_name(tmp_path):
    config = preset("tiny")
    first, second = config.cameras
    config = replace(config, cameras=(first, replace(second, name="left")))
    save(tmp_path / "tiny", untrained_policy(config))
    with spear_bench(tmp_path / "tiny", up=False) as bench:
        refused(bench, "configure", "wants cameras named left; the graph has external, wrist")


def test_a_camera_of_the_card_that_nobody_publishes_fails_activation_by_topic(checkpoint):
    with spear_bench(checkpoint, up=False, startup_timeout_s=1.0) as bench:
        bench.world.cameras = {"external"}
        assert bench.configure()
        refused(bench, "activate", "no image on /wrist/image_raw; start the wrist camera")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_on_a_machine_without_a_gpu_fails_configure(checkpoint):
    parameters = {"engine": "spear", "checkpoint": str(checkpoint), "device": "cuda"}
    with policy_fixture(None, up=False, **parameters) as bench:
        refused(bench, "configure", "device is cuda, but torch sees no GPU", "check the driver")


# Bad input while it works -------------------------------------------------------------------------


def test_a_black_camera_warns_then_holds_and_recovers(checkpoint):
    with spear_bench(checkpoint, black_hold_after_s=1.5) as bench:
        world = bench.world
        world.instruct(TASK)
        world.wait_for_chunks(1)
        world.black = {"external"}
        world.wait_for_diagnosis(cameras="the external camera has been black")
        status = world.wait_for_state("BLOCKED", "the external camera has been black")
        assert "uncover the lens" in status.text
        world.wait_for_hold()
        since = len(world.chunks)
        world.black = set()
        wait(lambda: world.steps(since))
        world.wait_for_state("RUNNING", "following")


def test_an_encoding_without_colour_blocks_until_it_is_mended(checkpoint):
    with spear_bench(checkpoint) as bench:
        world = bench.world
        world.instruct(TASK)
        world.wait_for_chunks(1)
        world.encoding = "mono8"
        world.wait_for_state("BLOCKED", "has encoding 'mono8'")
        world.wait_for_hold()
        world.encoding = "rgb8"
        world.wait_for_state("RUNNING", "following")


def test_pictures_of_another_size_are_fitted_and_a_tiny_one_blocks(checkpoint):
    with spear_bench(checkpoint) as bench:
        world = bench.world
        world.instruct(TASK)
        world.wait_for_chunks(1)
        world.sizes = {"external": (320, 200), "wrist": (40, 90)}
        world.wait_for_chunks(3)
        world.sizes = {"external": (320, 200), "wrist": (4, 4)}
        world.wait_for_state("BLOCKED", "is 4x4")
        world.wait_for_hold()
        world.sizes = dict(SIZES)
        world.wait_for_state("RUNNING", "following")


def test_empty_long_and_endless_instructions_each_have_their_answer(checkpoint):
    with spear_bench(checkpoint) as bench:
        world = bench.world
        long = ("put the red cube there and " * 18).strip()  # 485 characters: cut to its tokens
        world.instruct(long)
        world.wait_for_instruction(long)
        world.instruct("x" * 10_000)
        wait(lambda: any("has 10000 characters" in status.text for status in world.statuses))
        assert world.wait_for_chunks(2)[-1].instruction == long
        world.instruct("  ")
        world.wait_for_state("WAITING", "emptied")
        world.wait_for_hold()
        world.instruct(TASK)
        world.wait_for_instruction(TASK)
