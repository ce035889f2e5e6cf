"""Normalisation statistics of a checkpoint, and what is done with them on a robot.

The statistics, how far live values stray from them, the end effector's state as the model reads it,
and the model's chunk as the robot reads it. Positions and translations are three numbers in metres;
rotations and the gripper are never normalised. The model writes quaternions wxyz with w >= 0;
everything outside it is xyzw. Only numpy: the torch counterpart of the change of axes is
spear_policy.model.rotation_flows.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import GRIPPER_CLOSED, GRIPPER_OPEN, Pose
from spear_policy.shared.config import ConfigError, read_dataclass

AXES = "xyz"
SCHEMES = ("quantile", "mean_std")
EPSILON_M = 1e-6  # added to the divisor, as in training
# Along an axis whose training range is narrower nothing moved but noise, which normalising blows
# up: 5 cm beyond a range of 0.1 mm would be 1000. There values are clipped.
NARROW_M = 1e-3
NARROW_LIMIT = 1.5


@dataclass(frozen=True)
class Range:
    """What one kind of vector did in training; each field has x, y, z [m].

    `Statistics` judges it, because it knows what it is called.

    Attributes:
        low, high: 1 % and 99 % quantiles, or constant bounds.
        mean, std: of all values.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        for each in dataclasses.fields(self):  # arrays are welcome, and integers hash as floats
            object.__setattr__(self, each.name, tuple(map(float, getattr(self, each.name))))


@dataclass(frozen=True)
class Statistics:
    """The card's "statistics": one scheme, and a range for each kind of vector.

    Attributes:
        scheme: quantile: low..high becomes -1..1. mean_std: zero mean, unit deviation.
        translation: of a chunk's translations, base frame.
        position: of the end effector's positions, base frame.

    Raises:
        ConfigError: a field that is not 3 finite numbers, no room between low and high, a
            negative std, or one of 0 under mean_std; the text names it.
    """

    scheme: Literal["quantile", "mean_std"]
    translation: Range
    position: Range

    def __post_init__(self):
        _check_scheme(self.scheme)
        for name in ("translation", "position"):
            _check_range(getattr(self, name), f"statistics.{name}", self.scheme)

    @classmethod
    def from_dict(cls, values: dict) -> "Statistics":
        """Read what `to_dict` wrote.

        Raises:
            ConfigError: an unknown, missing, wrongly typed or impossible field; it is named.
        """
        return read_dataclass(cls, values, "statistics")

    def to_dict(self) -> dict:
        """Plain numbers, strings, lists and dicts, for card.json."""
        return json.loads(_canonical_json(self))


def statistics_hash(statistics: Statistics) -> str:
    """SHA-256 (hex) of the canonical JSON: sorted keys, no spaces, floats as Python's repr."""
    return hashlib.sha256(_canonical_json(statistics).encode()).hexdigest()


def normalise(values_m: ArrayLike, bounds: Range, scheme: str) -> NDArray:
    """Vectors (..., 3) [m] as the model has them; clipped to -1.5..1.5 along `narrow_axes` alone.

    quantile: 2 (x - low) / (high - low + 1e-6) - 1. mean_std: (x - mean) / (std + 1e-6).

    Raises:
        ConfigError: another scheme.
    """
    origin, divisor = _divisor(scheme, bounds)
    scaled = (np.asarray(values_m, float) - origin) / divisor
    scaled = 2.0 * scaled - 1.0 if scheme == "quantile" else scaled
    limit = np.where(_widths(bounds, scheme) < NARROW_M, NARROW_LIMIT, np.inf)
    return np.clip(scaled, -limit, limit)


def denormalise(values: ArrayLike, bounds: Range, scheme: str) -> NDArray:
    """The inverse of `normalise` where it does not clip: (..., 3) back to metres.

    Raises:
        ConfigError: another scheme.
    """
    origin, divisor = _divisor(scheme, bounds)
    values = np.asarray(values, float)
    return (0.5 * (values + 1.0) if scheme == "quantile" else values) * divisor + origin


def narrow_axes(statistics: Statistics) -> list[str]:
    """A sentence for each axis along which all but nothing moved in training."""
    scheme, found = statistics.scheme, []
    for name in ("translation", "position"):
        for axis, width in zip(AXES, _widths(getattr(statistics, name), scheme), strict=True):
            if width < NARROW_M:
                found.append(
                    f"statistics.{name}: along {axis} all of the training data lies within "
                    f"{1e3 * width:.2g} mm, so {axis} is clipped there and the model learns "
                    "nothing of it: see whether the recordings have the right unit, or give that "
                    "axis constant bounds"
                )
    return found


class RangeReport:
    """How much of what comes in lately lies outside low..high; for one kind of vector, one thread.

    Outside is what the model never saw in training: a robot with another base frame, a table at
    another height. By the definition of its quantiles 2 % of the training data lie outside too.

    Args:
        name: what the values are, e.g. "position".
        bounds: the training range.
        window: how many of the last values count.
        limit: the fraction of them that may lie outside before `sentence` says so.
        min_values: how many there must be before it does.
    """

    def __init__(
        self, name: str, bounds: Range, window: int = 50, limit: float = 0.2, min_values: int = 10
    ):
        self.name, self.bounds, self.limit = name, bounds, limit
        self.min_values = min_values
        self._low, self._high = np.array(bounds.low), np.array(bounds.high)
        self._outside = np.zeros((window, 3), bool)
        self._added = 0

    def add(self, values_m: ArrayLike) -> None:
        """Count a vector (3,) or several (N, 3) [m]; what is not finite counts as outside."""
        values = np.asarray(values_m, float).reshape(-1, 3)
        outside = ~((values >= self._low) & (values <= self._high))
        for row in outside:
            self._outside[self._added % len(self._outside)] = row
            self._added += 1

    @property
    def count(self) -> int:
        """Values in the window."""
        return min(self._added, len(self._outside))

    @property
    def fractions(self) -> NDArray:
        """Of the values in the window, how many lie outside, per axis (3,), 0..1."""
        return self._outside.sum(axis=0) / max(1, self.count)

    def sentence(self) -> str:
        """Which axes lie outside more often than `limit`; empty when none does."""
        if self.count < self.min_values:
            return ""
        parts = [
            f"{self.name} {axis}: {100 * fraction:.0f} % of the last {self.count} values outside "
            f"the training range {low:.3g}..{high:.3g} m"
            for axis, fraction, low, high in zip(
                AXES, self.fractions, self._low, self._high, strict=True
            )
            if fraction > self.limit
        ]
        return "; ".join(parts)


def _widths(bounds: Range, scheme: str) -> NDArray:
    """What lies between -1 and 1, or between -2 and 2 deviations, (3,) [m]."""
    return (
        np.subtract(bounds.high, bounds.low) if scheme == "quantile" else 4 * np.array(bounds.std)
    )


def _divisor(scheme: str, bounds: Range) -> tuple[NDArray, NDArray]:
    """What is subtracted first, and what divides the difference, each (3,) [m]."""
    _check_scheme(scheme)
    if scheme == "quantile":
        return np.array(bounds.low), np.subtract(bounds.high, bounds.low) + EPSILON_M
    return np.array(bounds.mean), np.add(bounds.std, EPSILON_M)


def _check_scheme(scheme: str) -> None:
    if scheme not in SCHEMES:
        raise ConfigError(f"statistics.scheme is {scheme!r}: it may be one of {', '.join(SCHEMES)}")


def _check_range(bounds: Range, name: str, scheme: str) -> None:
    for each in dataclasses.fields(bounds):
        values = getattr(bounds, each.name)
        if len(values) != 3 or not np.all(np.isfinite(values)):
            raise ConfigError(
                f"{name}.{each.name} is {list(values)}: it must be 3 finite numbers [m]"
            )
    for axis, low, high in zip(AXES, bounds.low, bounds.high, strict=True):
        # What moved less than the epsilon did not move, and would be blown up to noise.
        if not high - low > EPSILON_M:
            raise ConfigError(
                f"{name}: on axis {axis}, low is {low:g} and high is {high:g} m, and high must be "
                "the larger; compute the statistics again, or give constant bounds to an axis "
                "along which nothing moved"
            )
    smallest = min(bounds.std)
    if smallest < 0 or (scheme == "mean_std" and smallest <= EPSILON_M):
        raise ConfigError(
            f"{name}.std is {list(bounds.std)}: it must not be negative, and the scheme 'mean_std' "
            "divides by it; compute the statistics again or use the scheme 'quantile'"
        )


def _canonical_json(statistics: Statistics) -> str:
    return json.dumps(
        dataclasses.asdict(statistics), sort_keys=True, separators=(",", ":"), allow_nan=False
    )


# State and chunk ----------------------------------------------------------------------------------

# w of R_ref^T R; below it the orientation is more than 157 degrees from the reference.
SEAM_MARGIN_WARNING = 0.2
# A measured opening may overshoot its stops by its calibration, not by its unit.
OPENING_SLACK = 0.1


@dataclass(frozen=True, eq=False)
class DecodedDeltas:
    """N deltas in the robot's terms, all from one anchor pose.

    Attributes:
        translations_m: (N, 3), base frame.
        rotations_xyzw: (N, 4) with w >= 0, end-effector frame of the anchor.
        gripper_openings: (N,), 0 closed or 1 open.
    """

    translations_m: NDArray
    rotations_xyzw: NDArray
    gripper_openings: NDArray


def encode_state(
    measured: Pose, gripper_opening: float, statistics: Statistics, reference_xyzw: ArrayLike
) -> NDArray:
    """The model's state (8,) float32: normalised position (3), rotation wxyz (4), gripper (1).

    The rotation is R_ref^T R with w >= 0; the gripper is -1 closed .. 1 open.

    Args:
        measured: end-effector pose, base frame.
        gripper_opening: 0 closed .. 1 open.
        reference_xyzw: (4,) R_ref of this robot, from the card.

    Raises:
        ValueError: a gripper opening that is not finite or not between 0 and 1, or a reference
            that is no unit quaternion.
    """
    if not -OPENING_SLACK <= gripper_opening <= 1.0 + OPENING_SLACK:
        raise ValueError(
            f"the gripper opening is {gripper_opening:g}; it must lie between 0 (closed) and 1 "
            "(open): correct it in the robot driver"
        )
    pose = np.concatenate([measured.position_m, measured.orientation_xyzw])
    return encode_states(pose[None], [gripper_opening], statistics, reference_xyzw)[0]


def encode_states(
    poses: ArrayLike, openings: ArrayLike, statistics: Statistics, reference_xyzw: ArrayLike
) -> NDArray:
    """`encode_state` for poses (N, 7) and openings (N,) of one robot: (N, 8) float32.

    Raises:
        ValueError: the reference is no unit quaternion.
    """
    poses = np.asarray(poses, float)
    position = normalise(poses[:, :3], statistics.position, statistics.scheme)
    rotation = quat.wxyz_from_xyzw(_from_reference(poses[:, 3:], reference_xyzw))
    gripper = 2.0 * np.clip(np.asarray(openings, float), 0.0, 1.0) - 1.0
    return np.concatenate([position, rotation, gripper[:, None]], axis=1).astype(np.float32)


def decode_chunk(
    translations: ArrayLike,
    rotations_wxyz: ArrayLike,
    grippers: ArrayLike,
    anchor: Pose,
    statistics: Statistics,
    rotation_frame: str = "end_effector",
) -> DecodedDeltas:
    """The model's answer in the robot's terms.

    Args:
        translations: (N, 3) normalised.
        rotations_wxyz: (N, 4) unit, in the axes of `rotation_frame`.
        grippers: (N,), open where above 0.
        anchor: the pose that the deltas start from, base frame.
        rotation_frame: `FlowConfig.rotation_frame`, "end_effector" or "base".

    Raises:
        ValueError: shapes that do not belong together, another `rotation_frame`, or a step that
            is not finite or turns by no rotation; the text names the step.
    """
    translations, rotations = np.asarray(translations, float), np.asarray(rotations_wxyz, float)
    grippers = np.asarray(grippers, float)
    steps = len(translations) if translations.ndim else 0
    shapes = translations.shape, rotations.shape, grippers.shape
    if not steps or shapes != ((steps, 3), (steps, 4), (steps,)):
        raise ValueError(
            "a chunk has translations (N, 3), rotations (N, 4) and grippers (N,), not "
            "{}, {} and {}; check the config of the model".format(*shapes)
        )
    numbers = np.concatenate([translations, rotations, grippers[:, None]], axis=1)
    bad = ~np.isfinite(numbers).all(axis=1) | ~quat.is_unit(quat.xyzw_from_wxyz(rotations))
    if bad.any():
        first = int(np.argmax(bad))
        raise ValueError(
            f"step {first + 1} of {steps} of the model's chunk is {numbers[first].tolist()} "
            "(translation, rotation wxyz, gripper), which is no motion; load the checkpoint "
            "again, and look at the pictures and the state that the model got"
        )
    return DecodedDeltas(
        translations_m=denormalise(translations, statistics.translation, statistics.scheme),
        rotations_xyzw=_end_effector_axes(
            quat.unit(quat.xyzw_from_wxyz(rotations)), anchor.orientation_xyzw, rotation_frame
        ),
        gripper_openings=np.where(grippers > 0, GRIPPER_OPEN, GRIPPER_CLOSED),
    )


def seam_margin(orientation_xyzw: ArrayLike, reference_xyzw: ArrayLike) -> float:
    """w of R_ref^T R: 1 at the reference orientation, 0 at the seam, half a turn away from it.

    At the seam the encoded quaternion jumps to its negative, so that noise in the measurement
    looks to the model like a jump of the state.
    """
    return float(_from_reference(orientation_xyzw, reference_xyzw)[..., 3])


def seam_warning(
    orientation_xyzw: ArrayLike, reference_xyzw: ArrayLike, limit: float = SEAM_MARGIN_WARNING
) -> str:
    """A sentence when `seam_margin` is below `limit`; empty otherwise."""
    margin = seam_margin(orientation_xyzw, reference_xyzw)
    if margin >= limit:
        return ""
    turn_deg = np.degrees(quat.angle(reference_xyzw, orientation_xyzw))
    return (
        f"the end effector is turned {turn_deg:.0f} degrees from the reference orientation of the "
        f"card (margin {margin:.2f}, limit {limit:g}): near 180 the encoded rotation changes its "
        "sign; start nearer to it, or train with a reference orientation near this one"
    )


def _from_reference(orientation_xyzw: ArrayLike, reference_xyzw: ArrayLike) -> NDArray:
    reference = quat.unit(reference_xyzw)
    return quat.half_space(quat.multiply(quat.inverse(reference), orientation_xyzw))


def _end_effector_axes(rotations_xyzw: NDArray, anchor_xyzw: NDArray, frame: str) -> NDArray:
    if frame == "base":
        turned = quat.multiply(rotations_xyzw, anchor_xyzw)
        rotations_xyzw = quat.multiply(quat.inverse(anchor_xyzw), turned)
    elif frame != "end_effector":
        raise ValueError(f"the rotation frame is {frame!r}; it must be 'end_effector' or 'base'")
    return quat.half_space(rotations_xyzw)
