"""A small release folder of Ego-Exo4D, written by the tests with the fields that are read."""

import json

import av
import numpy as np
from lzstring import LZString

from spear_training.annotation.records import encode_mask

WIDTH, HEIGHT, FRAMES = 320, 180, 45


def shade(number, camera_number=0):
    """Return the grey of a frame, so that a picture tells which frame it is."""
    return 20 + 4 * number + camera_number


def write_video(path, camera_number=0, frames=FRAMES, size=(WIDTH, HEIGHT), **options):
    """Write a real MP4 whose frames are of one grey each, key frames every 10."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream(
            options.pop("codec", "libx264"), rate=30, options={"g": "10", "bf": "2", **options}
        )
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            image = np.full((size[1], size[0], 3), shade(number, camera_number), np.uint8)
            image[: size[1] // 4, : size[0] // 4] = 0  # a mark in the top left corner
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())


def stored_mask(left, top, right, bottom, size=(WIDTH, HEIGHT)):
    """Return a mask as the release has it."""
    mask = np.zeros((size[1], size[0]), bool)
    mask[top:bottom, left:right] = True
    packed = LZString.compressToEncodedURIComponent(encode_mask(mask)["counts"])
    return {"width": size[0], "height": size[1], "encodedMask": packed}


def take(uid, name, scenario):
    """Return an entry of takes.json."""
    videos = {
        "cam01": {"0": {"relative_path": "frame_aligned_videos/cam01.mp4"}},
        "cam02": {"0": {"relative_path": "frame_aligned_videos/cam02.mp4"}},
        "aria01": {"rgb": {"relative_path": "frame_aligned_videos/aria01_214-1.mp4"}},
    }
    return {
        "take_uid": uid,
        "take_name": name,
        "root_dir": f"takes/{name}",
        "task_name": "something",
        "parent_task_name": scenario,
        "frame_aligned_videos": videos,
    }


def annotated(*numbers, box=(40, 30, 120, 90)):
    """Return the masks of one object in one camera."""
    return {"annotation": {str(number): stored_mask(*box) for number in numbers}}


def write_release(folder):
    """Write takes, annotations and videos; return the folder.

    Cooking: cam01 with a bowl and two spoons, cam02 without a video, Aria with a bowl.
    Bike repair, in the other split: cam01 with a wrench. Soccer: cam01 with a ball.
    """
    takes = [
        take("uid-cook", "lab_cook_1", "Cooking"),
        take("uid-bike", "lab_bike_2", "Bike Repair"),
        take("uid-ball", "lab_ball_3", "Soccer"),
    ]
    cook = {
        "stainless bowl_0": {
            "cam01_0": annotated(0, 12, 30),
            "cam02_0": annotated(0),
            "aria01_214-1": annotated(6),
        },
        "wooden_spoon_0": {"cam01_0": annotated(12, box=(200, 100, 230, 160))},
        "wooden_spoon_1": {"cam01_0": annotated(12, 31, box=(240, 100, 270, 160))},
    }
    bike = {"wrench_0": {"cam01_0": annotated(3)}}
    ball = {"ball_0": {"cam01_0": annotated(3)}}
    write(folder / "takes.json", takes)
    write(
        folder / "annotations" / "relations_train.json",
        {"annotations": {"uid-cook": {"object_masks": cook}, "uid-ball": {"object_masks": ball}}},
    )
    write(
        folder / "annotations" / "relations_val.json",
        {"annotations": {"uid-bike": {"object_masks": bike}}},
    )
    for number, (name, camera) in enumerate(
        [("lab_cook_1", "cam01"), ("lab_cook_1", "aria01_214-1"), ("lab_bike_2", "cam01")]
    ):
        videos = folder / "takes" / name / "frame_aligned_videos"
        write_video(videos / f"{camera}.mp4", number)
    return folder


def write(path, values):
    """Write a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
