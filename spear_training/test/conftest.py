"""A small RLDS folder, written by the tests in the layout that TFDS writes."""

import json

import cv2
import numpy as np
import pytest
from oxe_writing import encode_example, frame_record

STEPS, SIDE = 4, 16


def tensor(shape, dtype):
    """Return the features.json node of a tensor."""
    dimensions = {"dimensions": [str(side) for side in shape]} if shape else {}
    return {
        "pythonClassName": "tensorflow_datasets.core.features.tensor_feature.Tensor",
        "tensor": {"shape": dimensions, "dtype": dtype, "encoding": "none"},
        "description": "text that must not be believed",
    }


def text():
    """Return the features.json node of a text."""
    return {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}


def image(encoding="jpeg"):
    """Return the features.json node of a colour image."""
    shape = {"dimensions": [str(SIDE), str(SIDE), "3"]}
    return {
        "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
        "image": {"shape": shape, "dtype": "uint8", "encodingFormat": encoding},
    }


def group(**features):
    """Return the features.json node of a dictionary."""
    return {
        "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }


def bridge_features():
    """Return the features.json of BridgeData, as far as it is read."""
    cameras = {f"image_{camera}": image() for camera in range(4)}
    steps = group(
        action=tensor([7], "float32"),
        is_first=tensor([], "bool"),
        language_instruction=text(),
        observation=group(state=tensor([7], "float32"), **cameras),
    )
    sequence = {
        "pythonClassName": "tensorflow_datasets.core.features.dataset_feature.Dataset",
        "sequence": {"feature": steps, "length": "-1"},
    }
    metadata = group(file_path=text(), has_image_0=tensor([], "bool"))
    return group(steps=sequence, episode_metadata=metadata)


def picture(red, green, blue, suffix=".jpg"):
    """Return an encoded picture of one colour."""
    pixels = np.full((SIDE, SIDE, 3), [blue, green, red], np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def bridge_record(number=0, **changes):
    """Return the features of one episode; `number` shows in its state and its red pictures."""
    state = np.zeros((STEPS, 7), np.float32)
    state[:, 0] = 0.2 + 0.01 * np.arange(STEPS)
    state[:, 1] = number
    state[:, 6] = 1.0
    record = {
        "steps/action": np.ones((STEPS, 7), np.float32),
        "steps/is_first": np.arange(STEPS) == 0,
        "steps/language_instruction": [b"put carrot on plate"] * STEPS,
        "steps/observation/state": state,
        "steps/observation/image_0": [picture(200, 60 * number, 20)] * STEPS,
        "episode_metadata/file_path": [f"/lab/{number}.npy".encode()],
        "episode_metadata/has_image_0": np.array([False]),
    }
    for camera in (1, 2, 3):
        record[f"steps/observation/image_{camera}"] = [picture(0, 0, 0)] * STEPS
    return record | changes


@pytest.fixture
def write_rlds(tmp_path):
    """Return a function that writes records (one list a shard) to a folder and returns it."""

    def write(shards, features=None, **info_changes):
        folder = tmp_path / "rlds"
        folder.mkdir(exist_ok=True)
        for shard, records in enumerate(shards):
            name = f"toy-train.tfrecord-{shard:05d}-of-{len(shards):05d}"
            (folder / name).write_bytes(
                b"".join(frame_record(encode_example(record)) for record in records)
            )
        split = {
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            "name": "train",
            "shardLengths": [str(len(records)) for records in shards],
        }
        info = {"name": "toy", "version": "1.0.0", "fileFormat": "tfrecord", "splits": [split]}
        (folder / "dataset_info.json").write_text(json.dumps(info | info_changes))
        (folder / "features.json").write_text(json.dumps(features or bridge_features()))
        return folder

    return write


@pytest.fixture
def make_record():
    """Return `bridge_record`."""
    return bridge_record


@pytest.fixture
def make_features():
    """Return `bridge_features`."""
    return bridge_features


@pytest.fixture
def make_picture():
    """Return `picture`."""
    return picture
