"""RLDS folders: damaged files, arrays by features.json, and what is said when they disagree."""

import json

import cv2
import numpy as np
import pytest
from oxe_writing import encode_example, frame_record

from spear_training.data.reader import DataFileError
from spear_training.data.rlds import (
    RldsFolder,
    TfRecordFile,
    decode_example,
    main,
    masked_crc32c,
)

PAYLOADS = [b"first", b"", bytes(range(256)) * 40, b"last"]
STARTS = [0, 21, 37, 37 + 16 + 10240]


@pytest.fixture
def path(tmp_path):
    """Return a file of four records, one of them empty."""
    path = tmp_path / "toy.tfrecord"
    path.write_bytes(b"".join(frame_record(payload) for payload in PAYLOADS))
    return path


def test_records_are_read_in_any_order(path):
    file = TfRecordFile(path)
    assert len(file) == 4
    assert file.offsets == STARTS
    assert file.damage is None
    for index in (2, 0, 3, 1, 2):
        assert file.read(index) == PAYLOADS[index]
    for index in (4, -1):
        with pytest.raises(IndexError, match="there are 4"):
            file.read(index)


def test_a_damaged_payload_is_named_by_file_and_byte_and_leaves_the_others_alone(path):
    data = bytearray(path.read_bytes())
    data[STARTS[2] + 5000] ^= 1
    path.write_bytes(data)
    file = TfRecordFile(path)
    with pytest.raises(DataFileError, match=f"{path}: record 2 at byte 37 is damaged .*checksum"):
        file.read(2)
    assert [file.read(index) for index in (0, 1, 3)] == [PAYLOADS[i] for i in (0, 1, 3)]


@pytest.mark.parametrize("kept", [1, 11, 12, 5000, 10255])
def test_a_file_that_breaks_off_keeps_its_whole_records(path, kept):
    path.write_bytes(path.read_bytes()[: STARTS[2] + kept])
    file = TfRecordFile(path)
    assert [file.read(index) for index in (0, 1)] == PAYLOADS[:2]
    for index in (2, 3):
        with pytest.raises(DataFileError, match=f"{path}: record 2 at byte 37 is cut short"):
            file.read(index)


def test_a_damaged_length_ends_the_file_there(path):
    data = bytearray(path.read_bytes())
    data[STARTS[1]] ^= 1
    path.write_bytes(data)
    file = TfRecordFile(path)
    assert file.read(0) == b"first"
    with pytest.raises(DataFileError, match="record 1 at byte 21 has a damaged length"):
        file.read(1)


def test_a_file_of_another_kind_and_a_missing_one_are_said(tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("this is no record file, it is a text")
    assert "it is no TFRecord file" in TfRecordFile(other).damage
    with pytest.raises(DataFileError, match="nothing.tfrecord: cannot be read .No such file"):
        TfRecordFile(tmp_path / "nothing.tfrecord")


def test_the_mask_keeps_a_checksum_of_a_checksum_apart():
    crc = masked_crc32c(b"123456789")
    turned = (crc - 0xA282EAD8) & 0xFFFFFFFF
    assert ((turned << 15) | (turned >> 17)) & 0xFFFFFFFF == 0xE3069283


def test_features_survive_the_message_both_ways():
    features = {
        "a/floats": np.array([1.5, -2.0], np.float32),
        "a/whole": np.array([-(2**40), 3]),
        "flags": np.array([True, False]),
        "texts": [b"one", "zwölf".encode()],
    }
    again = decode_example(encode_example(features))
    assert again.keys() == features.keys()
    assert again["a/floats"].dtype == np.float32
    assert again["a/floats"].tolist() == [1.5, -2.0]
    assert again["a/whole"].tolist() == [-(2**40), 3]
    assert again["flags"].tolist() == [1, 0]
    assert again["texts"] == features["texts"]
    with pytest.raises(ValueError, match="not a tf.train.Example"):
        decode_example(b"\xff\xff\xff")


def test_episodes_of_all_shards_are_read_by_number(write_rlds, make_record):
    records = [make_record(number) for number in range(5)]
    folder = RldsFolder(write_rlds([records[:2], records[2:3], [], records[3:]]))
    assert (folder.name, folder.version, len(folder)) == ("toy", "1.0.0", 5)
    for number in (4, 0, 2, 3, 1):
        episode = folder.read(number)
        assert episode.metadata["episode_metadata/file_path"] == f"/lab/{number}.npy"
        assert np.all(episode.steps["observation/state"][:, 1] == number)
    assert "tfrecord-00003-of-00004: record 1" in folder.read(4).where
    with pytest.raises(IndexError, match="no episode 5"):
        folder.read(5)


def test_steps_have_the_shapes_and_types_of_features_json(write_rlds, make_record):
    episode = RldsFolder(write_rlds([[make_record(2)]])).read(0)
    steps = episode.steps
    assert (steps["action"].shape, steps["action"].dtype) == ((4, 7), np.float32)
    assert steps["is_first"].dtype == bool
    assert steps["is_first"].tolist() == [True, False, False, False]
    assert steps["language_instruction"].tolist() == ["put carrot on plate"] * 4
    assert steps["observation/image_0"].shape == (4, 16, 16, 3)
    assert steps["observation/image_0"].flags.c_contiguous
    # Red is the first channel; JPEG may change a value by a little.
    assert np.allclose(steps["observation/image_0"][0, 3, 3], [200, 120, 20], atol=3)


def test_only_the_wanted_features_are_decoded(write_rlds, make_record):
    broken = make_record(**{"steps/observation/image_0": [b"no picture"] * 4})
    folder = RldsFolder(write_rlds([[broken]]))
    episode = folder.read(0, ["steps/action", "episode_metadata/file_path"])
    assert episode.steps.keys() == {"action"}
    with pytest.raises(DataFileError, match="no feature steps/colour; it has episode_metadata"):
        folder.read(0, ["steps/colour"])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"steps/action": np.ones(27, np.float32)}, "steps/action: 27 numbers, not a multiple"),
        ({"steps/observation/state": np.ones((3, 7))}, "state has 3 values, not 4"),
        ({"steps/language_instruction": [b"one"]}, "language_instruction has 1 values, not 4"),
        ({"steps/observation/image_0": [b"no picture"] * 4}, "image_0: picture 0 is damaged"),
        ({"steps/observation/image_0": [b""] * 4}, r"picture 0 is damaged \(0 bytes\)"),
        ({"steps/action": [b"1"] * 28}, "steps/action: values of another type than tensor"),
        ({"episode_metadata/file_path": []}, "file_path has 0 values, not 1"),
    ],
)
def test_a_record_that_disagrees_with_features_json_is_named(
    write_rlds, make_record, changes, text
):
    folder = RldsFolder(write_rlds([[make_record(), make_record(1, **changes)]]))
    assert len(folder.read(0).steps["action"]) == 4
    with pytest.raises(DataFileError, match=text) as caught:
        folder.read(1)
    assert "toy-train.tfrecord-00000-of-00001: record 1" in str(caught.value)


def test_a_picture_of_another_size_is_named(write_rlds, make_record, make_features):
    features = make_features()
    observation = features["featuresDict"]["features"]["steps"]["sequence"]["feature"][
        "featuresDict"
    ]["features"]["observation"]["featuresDict"]["features"]
    shape = observation["image_0"]["image"]["shape"]
    shape["dimensions"] = ["-1", "-1", "3"]  # sides that vary are fine
    assert len(RldsFolder(write_rlds([[make_record()]], features)).read(0).steps) == 8
    shape["dimensions"] = ["8", "16", "3"]
    with pytest.raises(DataFileError, match=r"picture 0 is \(16, 16, 3\) uint8, features.json"):
        RldsFolder(write_rlds([[make_record()]], features)).read(0)


def test_a_missing_feature_is_named(write_rlds, make_record):
    record = make_record()
    del record["steps/action"]
    with pytest.raises(DataFileError, match="steps/action is missing"):
        RldsFolder(write_rlds([[record]])).read(0)


def test_features_that_cannot_be_read_are_left_out_unless_asked_for(
    write_rlds, make_record, make_features
):
    features = make_features()
    metadata = features["featuresDict"]["features"]["episode_metadata"]["featuresDict"]["features"]
    metadata["cloud"] = {
        "pythonClassName": "tensorflow_datasets.core.features.tensor_feature.Tensor",
        "tensor": {
            "shape": {"dimensions": ["-1", "3"]},
            "dtype": "float32",
            "encoding": "none",
        },
    }
    metadata["sound"] = {"pythonClassName": "somewhere.Audio", "audio": {}}
    folder = RldsFolder(write_rlds([[make_record()]], features))
    assert "episode_metadata/cloud" not in folder.read(0).metadata
    with pytest.raises(DataFileError, match="episode_metadata/cloud cannot be read: its shape"):
        folder.read(0, ["episode_metadata/cloud"])
    with pytest.raises(DataFileError, match="episode_metadata/sound cannot be read: it is a Audio"):
        folder.read(0, ["episode_metadata/sound"])


def test_fewer_records_than_dataset_info_says_is_said(write_rlds, make_record):
    folder = write_rlds([[make_record(), make_record(1)]])
    info = json.loads((folder / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = ["3"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    rlds = RldsFolder(folder)
    assert len(rlds.read(1).steps["action"]) == 4
    with pytest.raises(DataFileError, match="has 2 records, dataset_info.json says 3"):
        rlds.read(2)


def change_split(folder, **changes):
    """Change the entry of the split in dataset_info.json; None takes a key away."""
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    split = {k: v for k, v in (info["splits"][0] | changes).items() if v is not None}
    path.write_text(json.dumps(info | {"splits": [split]}))


@pytest.mark.parametrize(
    "template",
    [
        "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}-of-{NUM_SHARDS}",
        "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "",
    ],
)
@pytest.mark.parametrize("lengths", [["2", "1"], None, []])
def test_shards_are_found_by_every_template_of_tfds(write_rlds, make_record, template, lengths):
    records = [make_record(number) for number in range(3)]
    folder = write_rlds([records[:2], records[2:]])
    change_split(folder, filepathTemplate=template, shardLengths=lengths)
    rlds = RldsFolder(folder)
    assert len(rlds) == 3
    assert rlds.read(2).metadata["episode_metadata/file_path"] == "/lab/2.npy"


def test_renamed_shards_are_found_and_an_unknown_word_is_said(write_rlds, make_record):
    folder = write_rlds([[make_record(0)], [make_record(1)]])
    for path in folder.glob("toy-*"):
        path.rename(folder / path.name.replace("toy", "toy_100"))
    assert RldsFolder(folder).read(1).metadata["episode_metadata/file_path"] == "/lab/1.npy"
    change_split(folder, filepathTemplate="{DATASET}.{COLOUR}")
    with pytest.raises(DataFileError, match="dataset_info.json.*COLOUR"):
        RldsFolder(folder)


def test_part_of_a_set_is_read_when_asked_for(write_rlds, make_record, capsys):
    records = [make_record(number) for number in range(3)]
    folder = write_rlds([records[:1], records[1:2], records[2:]])
    (folder / "toy-train.tfrecord-00001-of-00003").unlink()
    with pytest.raises(DataFileError, match="lacks 1 of 3 files.*00001.*with --partial"):
        RldsFolder(folder)
    rlds = RldsFolder(folder, partial=True)
    assert (len(rlds), rlds.left_out) == (2, 1)
    assert rlds.read(1).metadata["episode_metadata/file_path"] == "/lab/2.npy"
    assert main([str(folder), "--partial"]) == 0
    assert "without 1 files, which are not there" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "toy-train.tfrecord-00000"])
def test_a_pointer_of_git_lfs_is_called_that(write_rlds, make_record, name):
    folder = write_rlds([[make_record()]])
    path = next(path for path in folder.iterdir() if path.name.startswith(name))
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    with pytest.raises(DataFileError, match="is a pointer of Git LFS") as caught:
        RldsFolder(folder).read(0)
    assert str(caught.value).count(name) == 1


def test_a_picture_of_16_bits_is_no_camera(write_rlds, make_record):
    depth = cv2.imencode(".png", np.full((16, 16), 900, np.uint16))[1].tobytes()
    broken = make_record(**{"steps/observation/image_0": [depth] * 4})
    with pytest.raises(DataFileError, match=r"picture 0 is \(16, 16, 3\) uint16, features.json"):
        RldsFolder(write_rlds([[broken]])).read(0)


def test_folders_that_are_none_are_refused_with_the_mend(tmp_path, write_rlds, make_record):
    with pytest.raises(DataFileError, match="give the folder that holds dataset_info.json"):
        RldsFolder(tmp_path)
    folder = write_rlds([[make_record()]], fileFormat="array_record")
    with pytest.raises(DataFileError, match="its files are array_record; only tfrecord is read"):
        RldsFolder(folder)
    folder = write_rlds([[make_record()]], splits=7)
    with pytest.raises(DataFileError, match="not TFDS's dataset_info.json"):
        RldsFolder(folder)
    folder = write_rlds([[make_record()]], {"features": 3})
    with pytest.raises(DataFileError, match="not TFDS's features.json"):
        RldsFolder(folder)
    folder = write_rlds([[make_record()]])
    with pytest.raises(DataFileError, match="no split 'val'; it has train"):
        RldsFolder(folder, "val")
    (folder / "toy-train.tfrecord-00000-of-00001").unlink()
    with pytest.raises(DataFileError, match="lacks 1 of 1 files, the first is toy-train"):
        RldsFolder(folder)


def test_the_command_shows_a_folder_and_counts_damaged_records(write_rlds, make_record, capsys):
    folder = write_rlds([[make_record(), make_record(**{"steps/action": np.ones(3)})]])
    assert main([str(folder)]) == 1
    output = capsys.readouterr()
    assert "steps/observation/image_0" in output.out
    assert "1 episodes are sound, 1 are damaged" in output.out
    assert "episode 1:" in output.err
    assert main([str(folder / "elsewhere")]) == 2
