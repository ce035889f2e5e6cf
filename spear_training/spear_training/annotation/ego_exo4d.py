"""Ego-Exo4D: frames of the release that have masks, as items with those masks.

What is where in a release folder (docs.ego-exo4d-data.org/data/metadata; facebookresearch/Ego4d,
notebooks/egoexo/EgoExo_Relations.ipynb and ego4d/research/util/masks.py):

* `takes.json`: a list; of a take we read `take_uid`, `take_name`, `root_dir`, `parent_task_name`
  ("Cooking", "Bike Repair", ...) and `frame_aligned_videos[camera][stream]["relative_path"]`.
* `annotations/relations_{train,val}.json`: `annotations[take_uid]["object_masks"][object]
  [camera]["annotation"][frame]` is a mask: width, height and `encodedMask`, the counts of COCO's
  compressed run lengths, packed by lz-string.
* An object is called "frying pan_0": what it is, and a number. A camera is called "cam01_0" or
  "aria01_214-1": its name and its stream; takes.json calls the stream 214-1 "rgb".
* A frame's number is its place in the frame-aligned video.
* Smaller videos, if they were downloaded, lie in `downscaled/448` beside the whole ones
  (ego4d/internal/download/manifest_gen.py).

Aria's pictures are those of a fisheye lens, hence exocentric cameras are the default.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from lzstring import LZString
from numpy.typing import NDArray
from PIL import Image

from spear_policy.inference.image_geometry import plan_fit
from spear_training.annotation.records import (
    PICTURE_HEIGHT_PX,
    PICTURE_WIDTH_PX,
    GivenObject,
    Item,
    RecordError,
    decode_mask,
    encode_mask,
)
from spear_training.annotation.sources import FrameFolder, Unit
from spear_training.annotation.stages import JobError

SCENARIOS = ("Cooking", "Bike Repair")
SPLITS = ("train", "val")
_STREAMS = {"214-1": "rgb"}
_MOST_ASPECT_ERROR = 0.01


@dataclass(frozen=True)
class Selection:
    """Which frames of the release are taken, and how they are stored.

    Attributes:
        splits: of the relations benchmark.
        scenarios: values of `parent_task_name`, or of none: all.
        views: exo, ego or both.
        every: each so many-th annotated frame of a camera.
        videos: full, or those with 448 lines.
        full_size: keep the video's size; otherwise pictures are made as small as 840x630 allows.
    """

    splits: tuple[str, ...] = SPLITS
    scenarios: tuple[str, ...] = SCENARIOS
    views: str = "exo"
    every: int = 1
    videos: str = "full"
    full_size: bool = False

    @property
    def settings(self) -> dict:
        return {"source": "egoexo4d", **asdict(self)}


@dataclass(frozen=True)
class CameraOfTake:
    """One video and what is annotated in it.

    Attributes:
        take, camera: names; together they name the unit.
        video: its file, or why there is none.
        masks: frame number -> object name -> mask as stored.
    """

    take: str
    camera: str
    video: Path | str
    masks: dict[int, dict[str, dict]]


def read_release(release: Path, selection: Selection) -> dict[str, CameraOfTake]:
    """Find what is to be taken: unit name -> camera of a take, in a fixed order.

    Raises:
        JobError: a file of the release is missing or damaged, or nothing is left.
    """
    try:
        takes = {take["take_uid"]: take for take in _read(release / "takes.json", list)}
    except (KeyError, TypeError) as error:
        raise JobError(f"{release / 'takes.json'} has another form than known: {error!r}") from None
    wanted = {scenario.casefold() for scenario in selection.scenarios}
    found: dict[str, CameraOfTake] = {}
    scenarios: set[str] = set()
    for split in selection.splits:
        path = release / "annotations" / f"relations_{split}.json"
        for uid, annotation in _read(path, dict)["annotations"].items():
            take = takes.get(uid)
            if take is None:
                raise JobError(f"{path} is about take {uid}, which takes.json lacks: download both")
            scenario = str(take.get("parent_task_name"))
            scenarios.add(scenario)
            if wanted and scenario.casefold() not in wanted:
                continue
            try:
                cameras = _cameras(release, take, annotation["object_masks"], selection)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise JobError(
                    f"{path}: take {uid} is written in another form than known: {error!r}"
                ) from None
            found |= {f"{camera.take}/{camera.camera}": camera for camera in cameras}
    if not found:
        raise JobError(
            f"{release} has no masks of {selection.views} cameras in the scenarios "
            f"{', '.join(selection.scenarios)}; there are {', '.join(sorted(scenarios)) or 'none'}"
        )
    return dict(sorted(found.items()))


def make_camera(folder: FrameFolder, name: str, camera: CameraOfTake, selection: Selection) -> Unit:
    """Write the pictures of one camera, with their masks."""
    made = Unit()
    if isinstance(camera.video, str):
        made.rejected.append(camera.video)
        return made
    try:
        for number, image in video_frames(camera.video, camera.masks):
            if isinstance(image, RecordError):
                made.rejected.append(str(image))
                continue
            small = image if selection.full_size else _smaller(image)
            objects = []
            for label, stored in sorted(camera.masks[number].items()):
                try:
                    objects.append(GivenObject(_label(label), mask=_mask(stored, image, small)))
                except RecordError as error:
                    made.rejected.append(f"frame {number}, {label}: {error}")
            path = folder.write_picture(name, f"{number:06d}", small)
            made.items.append(Item(f"{name}/{number:06d}", path, tuple(objects)))
    except RecordError as error:
        made.rejected.append(str(error))
    return made


def _read(path: Path, kind: type):
    try:
        with path.open("rb") as file:
            values = json.load(file)
    except OSError as error:
        raise JobError(f"{path} cannot be read ({error.strerror}): is this a release?") from None
    except ValueError as error:
        raise JobError(f"{path} is damaged ({error}): download it again") from None
    if not isinstance(values, kind) or (kind is dict and "annotations" not in values):
        raise JobError(f"{path} is not what Ego-Exo4D has under this name")
    return values


def _cameras(release: Path, take: dict, masks: dict, selection: Selection) -> list[CameraOfTake]:
    by_camera: dict[str, dict[int, dict[str, dict]]] = {}
    for name, cameras in masks.items():
        for camera, annotated in cameras.items():
            is_ego = camera.startswith("aria")
            if selection.views not in ("both", "ego" if is_ego else "exo"):
                continue
            frames = by_camera.setdefault(camera, {})
            for frame, mask in annotated["annotation"].items():
                frames.setdefault(int(frame), {})[name] = mask
    name = take.get("take_name") or Path(take["root_dir"]).name
    if Path(name).name != name:
        raise JobError(f"takes.json has a take named {name!r}; that is no name of a folder")
    return [
        CameraOfTake(
            name,
            camera,
            _video(release, take, camera, selection.videos),
            {number: frames[number] for number in sorted(frames)[:: selection.every]},
        )
        for camera, frames in by_camera.items()
        if frames
    ]


def _video(release: Path, take: dict, camera: str, videos: str) -> Path | str:
    device, _, stream = camera.partition("_")
    stream = _STREAMS.get(stream, stream or "0")
    try:
        relative = take["frame_aligned_videos"][device][stream]["relative_path"]
    except KeyError:
        relative = None
    if not relative:
        return f"takes.json has no video of camera {device}, stream {stream}"
    path = release / take["root_dir"] / relative
    return path if videos == "full" else path.parent / "downscaled" / videos / path.name


def _label(name: str) -> str:
    """What an object is: its name without the number."""
    return re.sub(r"_\d+$", "", name).replace("_", " ").strip()


def _smaller(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The smallest picture that still gives every pixel of the one of 840x630."""
    height, width = image.shape[:2]
    scale = max(plan_fit(width, height, PICTURE_WIDTH_PX, PICTURE_HEIGHT_PX).scale)
    if scale >= 1:
        return image
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _mask(stored: dict, image: NDArray[np.uint8], small: NDArray[np.uint8]) -> dict:
    """A stored mask in the pixels of the picture that is written."""
    try:
        width, height, packed = stored["width"], stored["height"], stored["encodedMask"]
    except (KeyError, TypeError):
        raise RecordError("the mask lacks its width, height or encodedMask") from None
    mask = decode_mask({"size": [height, width], "counts": unpacked(packed)})
    aspect = image.shape[1] / image.shape[0]
    if abs(width / height / aspect - 1) > _MOST_ASPECT_ERROR:
        raise RecordError(
            f"the mask is {width}x{height}, the video {image.shape[1]}x{image.shape[0]}"
        )
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(small.shape[:2], mask.shape, strict=True)
    )
    return encode_mask(mask[rows][:, columns])


def unpacked(packed: str) -> str:
    """What lz-string's compressToEncodedURIComponent has packed."""
    try:
        text = LZString.decompressFromEncodedURIComponent(packed)
    except (KeyError, IndexError, AttributeError, TypeError, UnboundLocalError):
        text = None
    if not text:
        raise RecordError("the mask is damaged: lz-string cannot unpack it")
    return text


# Single pictures of a video by their number, decoding little more than those -------------------

# To the next picture that is no further off than this the decoder goes on; further, it seeks.
_NEAR_S = 1.0


def video_frames(
    path: Path, numbers: Iterable[int]
) -> Iterator[tuple[int, NDArray[np.uint8] | RecordError]]:
    """Decode pictures of a video; number 0 is the picture that is shown first.

    Args:
        path: of the video.
        numbers: of the wanted pictures.

    Returns:
        Pairs, in the order they are shown, of a number, and the picture (H, W, 3) RGB or why it
        cannot be had.

    Raises:
        RecordError: the file is missing, or is no video.
    """
    import av

    errors = (av.error.FFmpegError, OSError)

    def lost(number: int, reason: str) -> RecordError:
        return RecordError(f"picture {number} of {path.name} cannot be had: {reason}")

    try:
        file = av.open(str(path))
    except errors as error:
        raise RecordError(f"{path} cannot be opened ({_words(error)})") from None
    with file:
        stamps = _stamps(file, path, errors)
        stream = file.streams.video[0]
        stream.thread_type = "AUTO"
        near, decoded, at = int(_NEAR_S / stream.time_base), iter(()), None
        for number in sorted(set(numbers)):
            if not 0 <= number < len(stamps):
                yield number, lost(number, f"the video has {len(stamps)}")
                continue
            stamp = stamps[number]
            try:
                if at is None or stamp - at > near:
                    file.seek(stamp, stream=stream)
                    decoded = file.decode(stream)
                found = _decode_to(decoded, stamp)
                if found is None:  # not every format is sought by when a picture is shown
                    file.seek(stamps[0], stream=stream)
                    decoded = file.decode(stream)
                    found = _decode_to(decoded, stamp)
                at = stamp
            except errors as error:
                found, at = lost(number, _words(error)), None
            yield number, lost(number, "it is damaged") if found is None else found


def _stamps(file, path: Path, errors: tuple) -> list[int]:
    """When each picture is shown, in the stream's unit; read without decoding."""
    if not file.streams.video:
        raise RecordError(f"{path} has no pictures in it")
    try:
        packets = [packet for packet in file.demux(file.streams.video[0]) if packet.size]
        stamps = [packet.pts for packet in packets if not packet.is_discard]
    except errors as error:
        raise RecordError(f"{path} is damaged ({_words(error)})") from None
    if not stamps or not packets[0].is_keyframe:
        raise RecordError(f"{path} has no picture to begin with; it is cut or damaged")
    if None in stamps:
        raise RecordError(f"{path} has no stamps; convert it to MP4")
    return sorted(stamps)


def _decode_to(decoded: Iterator, stamp: int) -> NDArray[np.uint8] | None:
    for frame in decoded:
        if frame.pts is not None and frame.pts >= stamp:
            whole = frame.pts == stamp and not frame.is_corrupt
            return frame.to_ndarray(format="rgb24") if whole else None
    return None


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
