"""Pictures of a video by number: the right ones, with few decoded, and damage in a sentence."""

import av
import numpy as np
import pytest
from egoexo4d_release import FRAMES, shade, write_video

from spear_training.annotation.ego_exo4d import VideoFrames
from spear_training.annotation.records import RecordError


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Return the path of a video with B frames."""
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    write_video(path)
    return path


def grey(image):
    """Return the grey of a frame, off its mark."""
    return image[-1, -1].astype(int).mean()


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
def test_every_picture_is_the_one_of_its_number(tmp_path, codec):
    path = tmp_path / "video.mp4"
    more = {"x265-params": "keyint=10:bframes=3:open-gop=1:log-level=none"}
    write_video(path, codec=codec, **(more if codec == "libx265" else {}))
    rng = np.random.default_rng(0)
    with VideoFrames(path) as video:
        assert len(video) == FRAMES
        for count in (1, 5, FRAMES):
            wanted = rng.choice(FRAMES, count, replace=False).tolist()
            found = dict(video.frames(wanted))
            assert list(found) == sorted(wanted)
            for number, image in found.items():
                assert grey(image) == pytest.approx(shade(number), abs=3.0)


def test_what_lies_between_is_not_decoded(video, monkeypatch):
    decoded = []
    with VideoFrames(video) as frames:
        real = frames._file.decode

        class Counting:
            """The file, counting what it decodes."""

            def __getattr__(self, name, file=frames._file):
                return getattr(file, name)

            def decode(self, stream):
                return (decoded.append(frame) or frame for frame in real(stream))

        monkeypatch.setattr(frames, "_file", Counting())
        assert len(dict(frames.frames([0, 1, 40, 41]))) == 4
    assert len({frame.pts for frame in decoded}) == len(decoded) < 15


def test_a_number_beyond_the_end_is_said_and_the_others_come(video):
    with VideoFrames(video) as frames:
        found = dict(frames.frames([3, FRAMES]))
    assert grey(found[3]) == pytest.approx(shade(3), abs=3.0)
    assert str(found[FRAMES]) == f"picture 45 of video.mp4 cannot be had: the video has {FRAMES}"


@pytest.mark.parametrize("content", [b"", b"not a video at all"])
def test_no_video_is_said(tmp_path, content):
    path = tmp_path / "video.mp4"
    path.write_bytes(content)
    with pytest.raises(RecordError, match="cannot be opened"):
        VideoFrames(path)
    with pytest.raises(RecordError, match="No such file"):
        VideoFrames(tmp_path / "missing.mp4")


def test_a_cut_video_is_said(video, tmp_path):
    path = tmp_path / "cut.mp4"
    path.write_bytes(video.read_bytes()[:-400])
    with pytest.raises(RecordError, match="cut.mp4"):
        VideoFrames(path)


def test_damage_inside_spares_the_pictures_before(video, tmp_path):
    with av.open(str(video)) as file:
        places = [packet.pos for packet in file.demux(video=0) if packet.size]
    data = bytearray(video.read_bytes())
    data[places[20] : places[30]] = bytes(places[30] - places[20])
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    with VideoFrames(path) as frames:
        found = dict(frames.frames([5, 25, 41]))
    assert grey(found[5]) == pytest.approx(shade(5), abs=3.0)
    assert isinstance(found[25], RecordError)
    assert grey(found[41]) == pytest.approx(shade(41), abs=3.0)
