"""TFRecord framing and its checksum, without TensorFlow."""

import random

import pytest

from spear_training.data.reader import DataFileError
from spear_training.data.rlds import TfRecordFile, crc32c, frame_record, masked_crc32c

PAYLOADS = [b"first", b"", bytes(range(256)) * 40, b"last"]
STARTS = [0, 21, 37, 37 + 16 + 10240]


@pytest.fixture
def path(tmp_path):
    """Return a file of four records, one of them empty."""
    path = tmp_path / "toy.tfrecord"
    path.write_bytes(b"".join(frame_record(payload) for payload in PAYLOADS))
    return path


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        # RFC 3720, B.4, and the check value of the CRC catalogues.
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"", 0),
    ],
)
def test_the_checksum_is_crc32c(data, crc):
    assert crc32c(data) == crc


def test_the_checksum_of_any_length_is_that_of_the_bit_by_bit_definition():
    def by_bits(data):
        remainder = 0xFFFFFFFF
        for byte in data:
            remainder ^= byte
            for _ in range(8):
                remainder = (remainder >> 1) ^ (0x82F63B78 * (remainder & 1))
        return remainder ^ 0xFFFFFFFF

    draw = random.Random(0)
    for length in [*range(9), 255, 256, 257, 511, 512, 513, 768, 1025, 5000]:
        data = draw.randbytes(length)
        assert crc32c(data) == by_bits(data), length
        assert crc32c(memoryview(data)) == by_bits(data), length


def test_the_checksum_of_megabytes_ends_in_the_residue_of_every_crc32c():
    draw = random.Random(1)
    for length in (2048 * 512 - 4, 2048 * 512, 3_000_001):
        data = draw.randbytes(length)
        whole = data + crc32c(data).to_bytes(4, "little")
        assert crc32c(whole) == 0x48674BC7, length
        # The pieces lie in other rows and blocks, so a mistake there would show.
        moved = draw.randbytes(700) + whole
        assert crc32c(moved + crc32c(moved).to_bytes(4, "little")) == 0x48674BC7, length


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
