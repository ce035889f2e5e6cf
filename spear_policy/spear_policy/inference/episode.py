"""One recorded episode, whatever it was recorded with, and its file."""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_policy.geometry.poses import GRIPPER_CLOSED, GRIPPER_OPEN
from spear_policy.geometry.tracking import TimedPoses
from spear_policy.shared.files import write_atomically

FORMAT, FORMAT_VERSION = "spear-episode", 1
_WORDS = (
    "instruction",
    "other_instructions",
    "later_instructions",
    "continues",
    "state_known",
    "robot",
    "source",
    "notes",
)


class EpisodeError(ValueError):
    """An episode or its file cannot be used; the text names it, what is wrong and the fix."""


class Video(Protocol):
    """Pictures of one camera: an array (T, H, W, 3) uint8 RGB, or what decodes them one by one."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __len__(self) -> int:
        """T."""

    def __getitem__(self, step: int) -> NDArray[np.uint8]:
        """The picture (H, W, 3) of a step."""


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Episode:
    """A recorded motion with its images and its sentence. The constructor judges all of it.

    Attributes:
        stamps_s: (T,) strictly increasing [s]; only differences matter.
        poses: (T, 7) measured end-effector poses in the robot's base frame, position [m] and
            orientation xyzw with continuous sign.
        gripper_openings: (T,) measured, 0 closed .. 1 open.
        instruction: the sentence that the motion answers.
        images: camera name -> Video (T, H, W, 3) uint8 RGB; "external" and "wrist" are the names
            that the policy knows.
        gripper_commands: (T,) what the gripper was commanded at each stamp, 0 closed .. 1 open, or
            None where that was not recorded. A gripper that holds something wide measures open,
            so a replay needs the command.
        command_poses: (T, 7) commanded poses of the end effector at each stamp, as `poses`; None
            where they were not recorded.
        other_instructions: further sentences for the same motion.
        later_instructions: (step, sentence) where the motion answers another sentence from that
            step on; `split_episode` makes an episode of each.
        continues: True where the motion went on after the last stamp, but what came next is not
            recorded: the arm did not come to rest there.
        state_known: False where poses were summed up from deltas: their differences are true,
            but where the robot stood is not known.
        robot: which robot moved.
        source: where it is from, in words; dataset, split, file, index and
            part make its name.
        notes: anything that a reader had to decide.
        left_out: recorded steps beside these that are in no episode.

    Raises:
        EpisodeError: the text names the first thing at fault.
    """

    stamps_s: NDArray
    poses: NDArray
    gripper_openings: NDArray
    instruction: str
    images: Mapping[str, Video] = field(default_factory=dict)
    gripper_commands: NDArray | None = None
    command_poses: NDArray | None = None
    other_instructions: tuple[str, ...] = ()
    later_instructions: tuple[tuple[int, str], ...] = ()
    continues: bool = False
    state_known: bool = True
    robot: str = ""
    source: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""
    left_out: int = 0

    def __post_init__(self):
        try:
            motion = TimedPoses(self.stamps_s, self.poses)
        except ValueError as error:
            raise EpisodeError(f"{self.name}: {error}") from None
        steps = len(motion)
        self._set("stamps_s", motion.stamps_s)
        self._set("poses", motion.poses)
        self._set("gripper_openings", self._gripper("gripper_openings", steps))
        if self.gripper_commands is not None:
            self._set("gripper_commands", self._gripper("gripper_commands", steps))
        if self.command_poses is not None:
            try:
                self._set("command_poses", TimedPoses(self.stamps_s, self.command_poses).poses)
            except ValueError as error:
                raise EpisodeError(f"{self.name}: command_poses: {error}") from None
        self._set("other_instructions", tuple(self.other_instructions))
        later = tuple((int(step), sentence) for step, sentence in self.later_instructions)
        self._set("later_instructions", later)
        begins = [0, *(step for step, _ in later), steps]
        if sorted(set(begins)) != begins:
            raise EpisodeError(f"{self.name}: later_instructions begin at {begins[1:-1]}")
        sentences = [sentence for _, sentence in later]
        for sentence in (self.instruction, *self.other_instructions, *sentences):
            if not isinstance(sentence, str) or not sentence.strip():
                raise EpisodeError(
                    f"{self.name}: the instruction is empty; a policy needs a sentence"
                )
        images = {name: self._video(name, video, steps) for name, video in self.images.items()}
        self._set("images", images)
        self._set("source", {str(key): str(value) for key, value in self.source.items()})

    @property
    def name(self) -> str:
        """What to call it in a message: where it is from, in a few words."""
        words = [self.source[key] for key in ("dataset", "split", "file") if key in self.source]
        part = ["part", self.source["part"]] if "part" in self.source else []
        return " ".join([*words, "episode", self.source.get("index", ""), *part]).strip()

    @property
    def motion(self) -> TimedPoses:
        """The poses over time."""
        return TimedPoses(self.stamps_s, self.poses)

    def __len__(self) -> int:
        return len(self.stamps_s)

    def __repr__(self) -> str:
        sizes = {name: video.shape[1:3] for name, video in self.images.items()}
        return f"<{self.name}: {len(self)} steps, {self.instruction!r}, images {sizes}>"

    def _set(self, name: str, value) -> None:
        object.__setattr__(self, name, value)

    def _gripper(self, name: str, steps: int) -> NDArray:
        values = np.array(getattr(self, name), float)
        if values.shape != (steps,):
            raise EpisodeError(
                f"{self.name}: {name} must have shape ({steps},), got {values.shape}"
            )
        # The comparison is false for NaN too.
        bad = ~((values >= GRIPPER_CLOSED) & (values <= GRIPPER_OPEN))
        if bad.any():
            step = int(np.argmax(bad))
            raise EpisodeError(
                f"{self.name}: {name}[{step}] is {values[step]}; it must be 0 (closed) to 1 (open)"
            )
        values.flags.writeable = False
        return values

    def _video(self, name: str, video: Video, steps: int) -> Video:
        if not hasattr(video, "shape"):
            video = np.asarray(video)
        shape = tuple(video.shape)
        fits = len(shape) == 4 and shape[0] == steps and shape[3] == 3 and all(shape)
        if not fits or video.dtype != np.uint8:
            raise EpisodeError(
                f"{self.name}: images of camera {name!r} must be ({steps}, height, width, 3) uint8 "
                f"RGB, got {shape} {video.dtype}"
            )
        if isinstance(video, np.ndarray):
            video = video.view()
            video.flags.writeable = False
        return video


# Episodes of more than one piece -----------------------------------------------------------------

# Nothing is interpolated over more than the first of these, or over more than so many usual steps
# where these are long, as in recordings of 3 Hz; and over more than MOST_GAP_S in no case.
LONGEST_GAP_S, LONGEST_GAP_STEPS, MOST_GAP_S = 0.25, 2.5, 1.0
# Before a hole, the next second of a motion is known in longer pieces only: a chunk needs as much.
LEAST_PIECE_S = 1.0


@dataclass(frozen=True, eq=False)
class VideoPart:
    """Steps `begin` to `end` of a Video."""

    video: Video
    begin: int
    end: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(end - begin, H, W, 3)."""
        return self.end - self.begin, *self.video.shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """uint8."""
        return self.video.dtype

    def __len__(self) -> int:
        return self.end - self.begin

    def __getitem__(self, step: int) -> NDArray[np.uint8]:
        """The picture (H, W, 3) of a step."""
        if not -len(self) <= step < len(self):
            raise IndexError(f"no step {step}, there are {len(self)}")
        return self.video[self.begin + step % len(self)]


def longest_gap_s(stamps_s: NDArray, least_s: float = LONGEST_GAP_S) -> float:
    """Over how much time a motion with these stamps (T,) may be interpolated [s]."""
    usual_s = float(np.median(np.diff(stamps_s))) if len(stamps_s) > 1 else 0.0
    return max(least_s, min(LONGEST_GAP_STEPS * usual_s, MOST_GAP_S))


def split_episode(episode: Episode, least_gap_s: float = LONGEST_GAP_S) -> list[Episode]:
    """The pieces of an episode that have no hole in time and one instruction each.

    Args:
        episode: as it was recorded.
        least_gap_s: a time without samples up to this is no hole; see `longest_gap_s`.

    Returns:
        the episode itself where it is of one piece. A single sample, and before a hole what lasts
        less than LEAST_PIECE_S, is left out and counted in the first piece.

    Raises:
        EpisodeError: nothing is left.
    """
    gaps_s = np.diff(episode.stamps_s)
    holes = np.flatnonzero(gaps_s > longest_gap_s(episode.stamps_s, least_gap_s)) + 1
    sentences = dict(((0, episode.instruction), *episode.later_instructions))
    begins = sorted({0, *holes.tolist(), *sentences})
    if len(begins) == 1:
        return [episode]
    pieces = []
    instruction = episode.instruction
    for part, (begin, end) in enumerate(zip(begins, [*begins[1:], len(episode)], strict=True)):
        instruction = sentences.get(begin, instruction)
        lasts_s = episode.stamps_s[end - 1] - episode.stamps_s[begin]
        if end - begin > 1 and (end not in holes or lasts_s >= LEAST_PIECE_S):
            pieces.append(_piece(episode, part, begin, end, instruction, end in holes))
    if not pieces:
        said = f"{len(holes)} holes in time, the longest of {gaps_s.max():.3f} s"
        if (usual_s := float(np.median(gaps_s))) > MOST_GAP_S:
            said += f" (its steps are {usual_s:g} s apart: are the stamps in seconds?)"
        raise EpisodeError(f"{episode.name}: {said}, leave no piece of a second")
    left_out = episode.left_out + len(episode) - sum(map(len, pieces))
    return [replace(pieces[0], left_out=left_out), *pieces[1:]]


def _piece(
    episode: Episode, part: int, begin: int, end: int, instruction: str, continues: bool
) -> Episode:
    kept = slice(begin, end)
    stamps_s = episode.stamps_s
    notes = [f"Steps {begin} to {end - 1} of {len(episode)}."]
    if continues:
        hole_s = stamps_s[end] - stamps_s[end - 1]
        notes.append(f"Nothing was recorded in the {hole_s:.3f} s after them.")
    return replace(
        episode,
        stamps_s=stamps_s[kept],
        poses=episode.poses[kept],
        command_poses=None if episode.command_poses is None else episode.command_poses[kept],
        gripper_openings=episode.gripper_openings[kept],
        gripper_commands=None
        if episode.gripper_commands is None
        else episode.gripper_commands[kept],
        instruction=instruction,
        later_instructions=(),
        continues=continues or (episode.continues and end == len(episode)),
        images={name: VideoPart(video, begin, end) for name, video in episode.images.items()},
        source={**episode.source, "part": str(part)},
        notes=" ".join([*notes, episode.notes]).strip(),
        left_out=0,
    )


def binary_gripper(values: ArrayLike, low: float = 0.05, high: float = 0.95) -> NDArray:
    """Gripper commands (T,) as 0 or 1: above `high` open, below `low` closed.

    A value in between is on its way and takes the value that is reached afterwards; at the end of
    the recording, where none is, the nearer one.
    """
    values = np.asarray(values, float)
    steps = np.arange(len(values))
    # For every step, the next one (or itself) at which the gripper has arrived.
    arrived = np.where((values > high) | (values < low), steps, len(values))
    arrival = np.minimum.accumulate(arrived[::-1])[::-1]
    reached = values[np.minimum(arrival, len(values) - 1)] if len(values) else values
    return np.where(reached >= 0.5, GRIPPER_OPEN, GRIPPER_CLOSED)


def save_episode(episode: Episode, path: str | Path) -> None:
    """Write `episode` to one compressed .npz: whole or not at all.

    Raises:
        OSError: the folder is missing or the disk is full.
    """
    words = {name: getattr(episode, name) for name in _WORDS}
    arrays = {
        "format": np.array(FORMAT),
        "format_version": np.array(FORMAT_VERSION),
        "words": np.array(json.dumps(words)),
        "stamps_s": episode.stamps_s,
        "poses": episode.poses,
        "gripper_openings": episode.gripper_openings,
    }
    if episode.gripper_commands is not None:
        arrays["gripper_commands"] = episode.gripper_commands
    if episode.command_poses is not None:
        arrays["command_poses"] = episode.command_poses
    arrays |= {f"images/{name}": np.stack(list(video)) for name, video in episode.images.items()}
    # In memory first: a zip file that meets a full disk complains once more when it is dropped.
    archive = io.BytesIO()
    np.savez_compressed(archive, **arrays)
    write_atomically(path, archive.getvalue())


def load_episode(path: str | Path) -> Episode:
    """Read what `save_episode` wrote.

    Raises:
        EpisodeError: missing, cut short, damaged, foreign or newer file, or an episode that is not
            valid; the text names the file and the fix.
    """
    path = Path(path)
    if not path.is_file():
        raise EpisodeError(f"{path}: there is no such file; make one with import_episodes")
    if not zipfile.is_zipfile(path):
        raise EpisodeError(f"{path}: cut short or not an episode; copy or import it again")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise EpisodeError(f"{path}: damaged ({error}); copy or import it again") from None
    if str(arrays.get("format")) != FORMAT:
        held = ", ".join(sorted(arrays)) or "nothing"
        raise EpisodeError(f"{path}: not an episode (it holds {held}); use import_episodes")
    videos = {name[7:]: array for name, array in arrays.items() if name.startswith("images/")}
    try:
        version = arrays["format_version"].item()
        if version != FORMAT_VERSION:
            raise EpisodeError(
                f"episode format {version}; this SPEAR reads format {FORMAT_VERSION}, import it "
                "again with this version"
            )
        return Episode(
            stamps_s=arrays["stamps_s"],
            poses=arrays["poses"],
            gripper_openings=arrays["gripper_openings"],
            gripper_commands=arrays.get("gripper_commands"),
            command_poses=arrays.get("command_poses"),
            images=videos,
            **json.loads(str(arrays["words"])),
        )
    except EpisodeError as error:
        raise EpisodeError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise EpisodeError(
            f"{path}: a part is missing or foreign ({error!r}); import it again"
        ) from None
