"""The table of engines: each is made from its name, and pays only for what it needs."""

import subprocess
import sys

import pytest

from spear_policy.inference.engine import ENGINES, make_engine

NODE_WITH_SCRIPTED = """
import sys
import spear_policy.nodes.policy_node
import spear_policy.inference.replay
from spear_policy.inference.engine import make_engine
engine = make_engine({"engine": "scripted", "scripted_cameras": "both"})
assert [camera.name for camera in engine.card.cameras] == ["external", "wrist"]
assert "torch" not in sys.modules
"""


def test_the_node_and_the_engines_without_a_network_do_not_import_torch():
    done = subprocess.run(
        [sys.executable, "-c", NODE_WITH_SCRIPTED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_engine_of_the_table_can_be_made():
    for entry in ENGINES.values():
        assert callable(__import__(entry.module, fromlist=["from_parameters"]).from_parameters)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"engine": "magic"}, "must be one of spear, scripted, replay"),
        ({"engine": "spear", "checkpoint": ""}, "needs checkpoint; make_checkpoint makes one"),
        ({"engine": "replay", "episode_file": ""}, "needs episode_file; import_episodes makes"),
    ],
)
def test_an_engine_that_cannot_be_made_is_named_with_what_it_lacks(params, words):
    with pytest.raises(ValueError, match=words):
        make_engine(params)
