"""Whether cameras show the present: frozen pictures while the robot moves, and black ones.

A driver whose stream has died may repeat its last picture for ever with new stamps, which pass
every check of age. A real sensor has noise, so exactly equal pixels are never chance; but a
simulated or decoded picture of a still scene is equal too. So a camera counts as frozen only when
the digests of its pictures stay the same while the end effector moves.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry.poses import Pose, distance
from spear_policy.inference.image_geometry import check_image

CLOCK_SET_BACK_S = 1.0


class CameraLevel(IntEnum):
    """What to do about a camera."""

    OK, WARN, HOLD = range(3)


@dataclass(frozen=True)
class CameraLimits:
    """When a camera counts as frozen or black; one set per camera.

    Attributes:
        frozen_after_s, min_frames: WARN when the same pixels lasted so long, in so many frames,
            and meanwhile the end effector was ...
        min_motion_m, min_rotation_rad: ... farther than one of these from where they began.
        hold_after_s: HOLD when that goes on for so long after the first WARN.
        black_below: a picture without any brighter value is black.
        black_hold_after_s: HOLD when a required camera is black for so long.
        required: the policy cannot do without this camera; an optional one may be black, which is
            what the model gets for a missing camera.
        judge_frozen: False for a camera that may rightly not see the arm move, such as a
            simulated one that faces elsewhere.
    """

    frozen_after_s: float = 0.5
    min_frames: int = 4
    min_motion_m: float = 0.02
    min_rotation_rad: float = 0.15
    hold_after_s: float = 0.3
    black_below: int = 3
    black_hold_after_s: float = 1.0
    required: bool = True
    judge_frozen: bool = True


@dataclass(frozen=True)
class ImageDigest:
    """What of a picture has to be kept: `crc32` of its bytes, its shape and its brightest value.

    Two different pictures share a CRC once in 4 billion. That would have to happen to every
    pair of min_frames frames in a row to raise an alarm, and once to postpone one.
    """

    crc32: int
    shape: tuple[int, ...]
    brightest: int


@dataclass(frozen=True)
class CameraVerdict:
    """The worst level of all cameras, and a sentence for each that is not OK."""

    level: CameraLevel = CameraLevel.OK
    text: str = ""


@dataclass
class _SameFrames:
    """Frames in a row with the same pixels; stamps [s], the farthest way from the first pose."""

    digest: ImageDigest
    first_s: float
    first_pose: Pose
    last_s: float
    frames: int = 1
    motion_m: float = 0.0
    rotation_rad: float = 0.0
    warned_s: float | None = None  # stamp of the frame at which it counted as frozen
    black_since_s: float | None = None  # lasts over runs: dark noise is black too


def digest(image: NDArray) -> ImageDigest:
    """The digest of an image (H, W, 3) uint8.

    Of all bytes: a small object may be all that moves in a simulated picture.

    Raises:
        ValueError: it is no such image.
    """
    check_image(image)
    crc32 = zlib.crc32(np.ascontiguousarray(image))
    return ImageDigest(crc32, image.shape, int(image.max()))


class CameraHealth:
    """Watches the frames of every camera that `limits` names; one thread.

    It gets each new frame with the end effector's pose at the stamp of the frame, and recovers by
    itself with the first frame that differs.
    """

    def __init__(self, limits: Mapping[str, CameraLimits]):
        self._limits = dict(limits)
        self._runs: dict[str, _SameFrames] = {}
        self._verdicts: dict[str, CameraVerdict] = {}

    def add(
        self, camera: str, stamp_s: float, image: NDArray | ImageDigest, end_effector: Pose
    ) -> CameraVerdict:
        """Judge a frame, given as (H, W, 3) uint8 or as its `digest`; the camera's verdict.

        A frame that is not newer than the last changes nothing; one that is more than a second
        older, as when a simulation starts over, begins anew.

        Args:
            stamp_s: when the picture was taken, node clock [s].
            end_effector: its measured pose then, base frame; for a wrist camera too.

        Raises:
            ValueError: a camera without limits, a stamp that is not finite, or no image.
        """
        if camera not in self._limits:
            raise ValueError(f"no camera {camera!r} is watched, only {', '.join(self._limits)}")
        if not np.isfinite(stamp_s):
            raise ValueError(f"the {camera} image is stamped {stamp_s}; check its driver")
        if not isinstance(image, ImageDigest):
            image = digest(image)
        run = self._runs.get(camera)
        if run is not None and run.last_s - CLOCK_SET_BACK_S <= stamp_s <= run.last_s:
            return self._verdicts[camera]
        if run is not None and stamp_s < run.last_s:
            run = None
        run = self._runs[camera] = _continue(run, stamp_s, image, end_effector)
        self._verdicts[camera] = _judge(camera, run, self._limits[camera])
        return self._verdicts[camera]

    @property
    def verdict(self) -> CameraVerdict:
        """Of all cameras together."""
        found = [each for each in self._verdicts.values() if each.level > CameraLevel.OK]
        if not found:
            return CameraVerdict()
        text = "; ".join(each.text for each in found)
        return CameraVerdict(max(each.level for each in found), text)


def _continue(
    run: _SameFrames | None, stamp_s: float, image: ImageDigest, end_effector: Pose
) -> _SameFrames:
    """The run that a new frame belongs to: the last one, or its own."""
    if run is None or run.digest != image:
        black_since_s = run.black_since_s if run else None
        run = _SameFrames(image, stamp_s, end_effector, stamp_s, black_since_s=black_since_s)
    else:
        motion_m, rotation_rad = distance(run.first_pose, end_effector)
        run.motion_m = max(run.motion_m, motion_m)
        run.rotation_rad = max(run.rotation_rad, rotation_rad)
        run.last_s, run.frames = stamp_s, run.frames + 1
    return run


def _judge(camera: str, run: _SameFrames, limits: CameraLimits) -> CameraVerdict:
    if run.digest.brightest < limits.black_below:
        return _judge_black(camera, run, limits)
    run.black_since_s = None
    lasted_s = run.last_s - run.first_s
    moved = run.motion_m > limits.min_motion_m or run.rotation_rad > limits.min_rotation_rad
    long = lasted_s >= limits.frozen_after_s and run.frames >= limits.min_frames
    if not (limits.judge_frozen and moved and long):
        return CameraVerdict()
    if run.warned_s is None:
        run.warned_s = run.last_s
    hold = run.last_s - run.warned_s >= limits.hold_after_s
    return CameraVerdict(
        CameraLevel.HOLD if hold else CameraLevel.WARN,
        f"the {camera} camera has shown exactly the same picture for {lasted_s:.1f} s "
        f"({run.frames} frames) while the end effector moved {1000 * run.motion_m:.0f} mm and "
        f"turned {np.degrees(run.rotation_rad):.0f} degrees: its driver is frozen, restart it",
    )


def _judge_black(camera: str, run: _SameFrames, limits: CameraLimits) -> CameraVerdict:
    if run.black_since_s is None:
        run.black_since_s = run.last_s
    lasted_s = run.last_s - run.black_since_s
    hold = limits.required and lasted_s >= limits.black_hold_after_s
    meaning = "the policy is blind" if limits.required else "the policy goes on without it"
    return CameraVerdict(
        CameraLevel.HOLD if hold else CameraLevel.WARN,
        f"the {camera} camera has been black for {lasted_s:.1f} s (no value above "
        f"{run.digest.brightest} of 255), so {meaning}: uncover the lens, light the scene, or "
        "check its driver",
    )
