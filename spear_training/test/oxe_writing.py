"""Writes small RLDS folders in the layout of any dataset of the mixture."""

import json
import struct
from functools import cache

import cv2
import numpy as np

from spear_training.data.rlds import Example, masked_crc32c

PACKAGE = "tensorflow_datasets.core.features"


def features_json(layout):
    """Return the features.json of a layout; see oxe_layouts."""
    features = {}
    for name, node in layout.items():
        if name == "steps":
            sequence = {"feature": features_json(node), "length": "-1"}
            features[name] = {
                "pythonClassName": f"{PACKAGE}.dataset_feature.Dataset",
                "sequence": sequence,
            }
        else:
            features[name] = features_json(node) if isinstance(node, dict) else leaf_json(node)
    name = f"{PACKAGE}.features_dict.FeaturesDict"
    return {"pythonClassName": name, "featuresDict": {"features": features}}


def leaf_json(node):
    """Return the node of one feature."""
    if node == "text":
        return {"pythonClassName": f"{PACKAGE}.text_feature.Text", "text": {}}
    if node[0] == "image":
        shape = {"dimensions": [str(node[1]), str(node[2]), "3"]}
        picture = {"shape": shape, "dtype": "uint8", "encodingFormat": "jpeg"}
        return {"pythonClassName": f"{PACKAGE}.image_feature.Image", "image": picture}
    dtype, *sides = node
    shape = {"dimensions": [str(side) for side in sides]} if sides else {}
    tensor = {"shape": shape, "dtype": dtype, "encoding": "none"}
    return {"pythonClassName": f"{PACKAGE}.tensor_feature.Tensor", "tensor": tensor}


def frame_record(payload):
    """Return `payload` as one TFRecord record, ready to be appended to a file."""
    length = struct.pack("<Q", len(payload))
    crcs = (struct.pack("<I", masked_crc32c(part)) for part in (length, payload))
    return length + next(crcs) + payload + next(crcs)


def encode_example(features):
    """Return the Example of floats, integers or booleans (arrays) and bytes (lists)."""
    example = Example()
    for key, values in features.items():
        feature = example.features.feature[key]
        if isinstance(values, list):
            feature.bytes_list.value.extend(values)
        elif np.asarray(values).dtype.kind == "f":
            feature.float_list.value.extend(np.ravel(values).tolist())
        else:
            feature.int64_list.value.extend(np.ravel(values).astype(np.int64).tolist())
    return example.SerializeToString()


@cache
def picture(height, width, red, green, blue):
    """Return a JPEG of one colour."""
    pixels = np.full((height, width, 3), [blue, green, red], np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def blank_record(layout, count, prefix=""):
    """Return a record of `count` steps with zeros, empty texts and black pictures."""
    record = {}
    for name, node in layout.items():
        key = f"{prefix}{name}"
        steps = count if key.startswith("steps/") else 1
        if isinstance(node, dict):
            record |= blank_record(node, count, f"{key}/")
        elif node == "text":
            record[key] = [b""] * steps
        elif node[0] == "image":
            record[key] = [picture(node[1], node[2], 0, 0, 0)] * steps
        else:
            record[key] = np.zeros((steps, *node[1:]), node[0])
    return record


def write_folder(folder, layout, records, name, version, split="train"):
    """Write records, all in one shard, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}-{split}.tfrecord-00000-of-00001").write_bytes(
        b"".join(frame_record(encode_example(record)) for record in records)
    )
    info = {
        "name": name,
        "version": version,
        "fileFormat": "tfrecord",
        "splits": [{"name": split, "shardLengths": [str(len(records))]}],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps(features_json(layout)))
    return folder
