"""A card is read strictly, written whole, and compared with the model beside it."""

import dataclasses
import json
import os
from dataclasses import replace

import numpy as np
import pytest
from toy_models import MICRO

from spear_policy.inference.model_card import CardCamera, ModelCard
from spear_policy.inference.statistics import Range, Statistics, statistics_hash
from spear_policy.model.checkpoint import FILES
from spear_policy.shared.config import ConfigError

STATISTICS = Statistics(
    "quantile",
    Range((-0.1,) * 3, (0.1,) * 3, (0.0,) * 3, (0.05,) * 3),
    Range((0.2, -0.4, 0.0), (0.8, 0.4, 0.6), (0.5, 0.0, 0.3), (0.1,) * 3),
)
CARD = ModelCard(
    checkpoint_id="micro-1",
    recipe="vla_bridge",
    git_revision="0123abc",
    datasets=("bridge",),
    dt_s=0.2,
    chunk_length=5,
    anchor="measured",
    cameras=(CardCamera("external", "auto", 4 / 3), CardCamera("wrist", "pad", None)),
    reference_orientations_xyzw={"franka": (1.0, 0.0, 0.0, 0.0), "widowx": (0, 0, 0, 1)},
    statistics=STATISTICS,
    statistics_hash=statistics_hash(STATISTICS),
    file_hashes=dict.fromkeys(FILES, "0f" * 32),
)


def written(tmp_path, change=lambda values: None):
    path = tmp_path / "card.json"
    CARD.write(path)
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    return path


def test_a_card_survives_its_file(tmp_path):
    path = tmp_path / "card.json"
    CARD.write(path)
    assert ModelCard.read(path) == CARD
    assert os.listdir(tmp_path) == ["card.json"]


def test_the_file_has_the_keys_of_the_contract(tmp_path):
    values = json.loads(written(tmp_path).read_text())
    assert list(values) == [
        "checkpoint_id",
        "recipe",
        "git_revision",
        "datasets",
        "dt_s",
        "chunk_length",
        "anchor",
        "cameras",
        "reference_orientations_xyzw",
        "statistics",
        "statistics_hash",
        "file_hashes",
    ]
    assert values["cameras"][1] == {"name": "wrist", "fit": "pad", "native_aspect": None}
    assert values["reference_orientations_xyzw"]["franka"] == [1, 0, 0, 0]
    assert set(values["statistics"]["position"]) == {"low", "high", "mean", "std"}


def test_who_reads_a_card_while_it_is_written_anew_sees_the_old_one(tmp_path):
    path = tmp_path / "card.json"
    CARD.write(path)
    with open(path) as reader:
        replace(CARD, checkpoint_id="micro-2").write(path)
        assert json.load(reader)["checkpoint_id"] == "micro-1"
    assert ModelCard.read(path).checkpoint_id == "micro-2"


def test_a_card_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "card.json"
    CARD.write(path)

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        replace(CARD, checkpoint_id="micro-2").write(path)
    assert ModelCard.read(path).checkpoint_id == "micro-1"
    assert os.listdir(tmp_path) == ["card.json"]


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(ModelCard)])
def test_every_missing_key_is_named(tmp_path, key):
    path = written(tmp_path, lambda values: values.pop(key))
    with pytest.raises(ConfigError, match=f"card.json: .*{key}"):
        ModelCard.read(path)


def put(*path_and_value):
    *path, last, value = path_and_value

    def change(values):
        for key in path:
            values = values[key]
        values[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("colour", "red"), "unknown field 'colour'"),
        (put("checkpoint_id", " "), "checkpoint_id is empty"),
        (put("dt_s", 0), "dt_s is 0"),
        (put("dt_s", -0.2), "dt_s is -0.2"),
        (put("dt_s", "0.2"), "card.dt_s is '0.2'"),
        (put("chunk_length", 0), "chunk_length is 0"),
        (put("chunk_length", 5.0), "card.chunk_length is 5.0"),
        (put("chunk_length", True), "card.chunk_length is True"),
        (put("dt_s", 10**400), "number too large"),
        (put("anchor", "desired"), "card.anchor is 'desired'"),
        (put("datasets", "bridge"), "card.datasets is 'bridge'"),
        (put("cameras", []), "cameras is empty"),
        (put("cameras", 1, "name", "external"), "cameras has a name twice"),
        (put("cameras", 0, "fit", "stretch"), r"card.cameras\[0\].fit is 'stretch'"),
        (put("cameras", 0, "native_aspect", 0), r"cameras\[0\].native_aspect is 0"),
        (put("cameras", 0, {"name": "external", "fit": "auto"}), "lacks the field 'native_aspect'"),
        (put("reference_orientations_xyzw", {}), "reference_orientations_xyzw is empty"),
        (put("reference_orientations_xyzw", []), "card.reference_orientations_xyzw"),
        (
            put("reference_orientations_xyzw", "franka", [0, 0, 0, 2]),
            r"reference_orientations_xyzw.franka is \[0, 0, 0, 2\]: .*unit quaternion",
        ),
        (put("reference_orientations_xyzw", "franka", [1, 0, 0]), "xyzw.franka is"),
        (put("reference_orientations_xyzw", "franka", "down"), "xyzw.franka is 'down'"),
        (put("reference_orientations_xyzw", "franka", [0, 0, 0, "1"]), "xyzw.franka is"),
        (put("statistics", "position", "low", [0.9, 0, 0]), "statistics.position: on axis x"),
        (put("statistics", "position", "low", [0.1, -0.4, 0]), "statistics_hash .*were changed"),
        (put("statistics", None), "card.statistics is None"),
        (put("file_hashes", "config.json", "abc"), "file_hashes.config.json is 'abc'"),
        (put("file_hashes", "other.json", "0f" * 32), "file_hashes has 'other.json'"),
        (put("file_hashes", {}), "file_hashes lacks config.json"),
    ],
)
def test_a_wrong_value_is_named_in_one_sentence_with_its_file(tmp_path, change, words):
    path = written(tmp_path, change)
    with pytest.raises(ConfigError, match=words) as caught:
        ModelCard.read(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text


def test_a_card_cut_anywhere_is_refused(tmp_path):
    path = written(tmp_path)
    whole = path.read_text()
    for end in range(0, len(whole) - 1, 7):
        path.write_text(whole[:end])
        with pytest.raises(ConfigError, match="cut short"):
            ModelCard.read(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe\x00", "cut short or no JSON"),
        (b"[1, 2]", "card is \\[1, 2\\]"),
        (b'{"dt_s": NaN}', "the number NaN"),
        (b'{"dt_s": 0.2, "dt_s": 0.3}', "'dt_s' is there twice"),
        (b"[" * 100_000, "cut short or no JSON"),
    ],
    ids=["binary", "list", "NaN", "repeated key", "deep"],
)
def test_a_file_that_is_no_card_is_refused(tmp_path, content, words):
    path = tmp_path / "card.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        ModelCard.read(path)


def test_a_missing_card_and_a_folder_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no such file; .*copy the whole folder"):
        ModelCard.read(tmp_path / "card.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        ModelCard.read(tmp_path)


def test_a_model_in_no_folder_may_lack_hashes_but_not_in_a_folder(tmp_path):
    card = replace(CARD, file_hashes={})
    with pytest.raises(ConfigError, match="file_hashes lacks"):
        card.write(tmp_path / "card.json")
    assert os.listdir(tmp_path) == []


def test_a_card_agrees_with_its_config():
    CARD.check(MICRO)


@pytest.mark.parametrize(
    ("card", "config", "words"),
    [
        (replace(CARD, cameras=CARD.cameras[::-1]), MICRO, "cameras are wrist, external in the c"),
        (replace(CARD, cameras=CARD.cameras[:1]), MICRO, "cameras are external in the card and"),
        (replace(CARD, chunk_length=4), MICRO, "chunk_length is 4 in the card and 5 in the config"),
    ],
)
def test_a_card_that_disagrees_with_its_config_is_refused(card, config, words):
    with pytest.raises(ConfigError, match=words):
        card.check(config)


def test_the_reference_orientation_of_a_robot_is_found_or_the_known_ones_are_listed():
    q = CARD.reference_orientation_xyzw("franka")
    assert isinstance(q, np.ndarray) and q.tolist() == [1, 0, 0, 0]
    with pytest.raises(ConfigError, match="'ur5', only franka, widowx"):
        CARD.reference_orientation_xyzw("ur5")
