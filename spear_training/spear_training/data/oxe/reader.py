"""Episodes of any row of the mixture table, from the RLDS files of its dataset.

`OxeReader` reads the episodes. Below it is what it reads them by: motion (poses and gripper, which
the LeRobot reader shares), sentences, the choice of episodes, and pictures. `store_metadata` is
what a row makes a store say about itself.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry.poses import GRIPPER_CLOSED, GRIPPER_OPEN
from spear_policy.inference.episode import Episode, EpisodeError, Video
from spear_training.data.oxe import poses as pose_rules
from spear_training.data.oxe.poses import Steps, pose_keys, read_poses
from spear_training.data.oxe.table import (
    EXTERNAL,
    FROM_COMMAND,
    FROM_MEASURED,
    REACHED,
    Camera,
    Columns,
    Condition,
    ConstantGripper,
    GripperEvents,
    Language,
    LinearGripper,
    MotionRules,
    PoseRule,
    Row,
    Subset,
    load_table,
    plain,
)
from spear_training.data.reader import DataFileError, EncodedVideo, NotSelectedError
from spear_training.data.rlds import STEPS, FeatureSpec, RldsEpisode, RldsFolder
from spear_training.data.store.format import PICTURE_SIZES, CameraMetadata, StoreMetadata

FILE_PATH = "episode_metadata/file_path"


class OxeReader:
    """The episodes of one dataset by its row of the mixture table; see EpisodeReader.

    Episodes that the row does not take raise NotSelectedError. Where the row leaves the order of
    its rotations to the data, some episodes are read at once to find it.

    Attributes:
        row: the rules, with every order decided.
        row_hash: of the row as it stands in the table.

    Raises:
        DataFileError: the folder cannot be used or holds another dataset, the row has
            unconfirmed facts or no such subset, or the data do not tell the order of rotations.
    """

    def __init__(
        self,
        row: Row,
        path: str | Path,
        split: str = "train",
        *,
        subset: str | None = None,
        any_name: bool = False,
        partial: bool = False,
    ):
        """Open a folder.

        Args:
            row: of the mixture table.
            path: folder with dataset_info.json, features.json and the TFRecord files.
            split: of the dataset.
            subset: one of the row's `subsets`, or None for all.
            any_name: take the folder whatever its dataset_info.json calls it.
            partial: take the files of the split that are there.
        """
        row.require_confirmed()
        self._folder = RldsFolder(path, split, partial)
        if not any_name:
            _check_source(row, self._folder)
        asked = row.require_subset(subset) if subset else None
        self._subsets = tuple(part for part in (row.subset, asked) if part)
        self._selectors = (*row.conditions, *self._subsets)
        self._where = f"row {row.name}"
        self.row, self.row_hash = row, row.hash
        self.row = replace(row, pose=self._decided("pose"), command=self._decided("command"))
        self._keys = self._needed_keys()

    @property
    def name(self) -> str:
        """Dataset, subset and split."""
        subsets = [each.name for each in self._subsets]
        return "-".join([self._folder.name, *subsets, self._folder.split])

    @property
    def subset(self) -> Subset | None:
        """The part of the dataset that is taken, or None for all of it."""
        return self._subsets[-1] if self._subsets else None

    @property
    def dataset_version(self) -> dict[str, str]:
        """Name, version and split of the dataset."""
        folder = self._folder
        version = {"dataset": folder.name, "version": folder.version, "split": folder.split}
        return version | ({"files_left_out": str(folder.left_out)} if folder.left_out else {})

    def __len__(self) -> int:
        return len(self._folder)

    def read(self, index: int) -> Episode:
        """Episode `index`.

        Raises:
            NotSelectedError: the row does not take it.
            DataFileError, EpisodeError, IndexError: see EpisodeReader.
        """
        record = self._folder.read(index, self._keys, decode_images=False)
        try:
            select(self._selectors, record.metadata)
            return self._episode(record, index)
        except EpisodeError as error:
            raise type(error)(f"{self._where}: {record.where}: {error}") from None

    def _episode(self, record: RldsEpisode, index: int) -> Episode:
        row, steps = self.row, record.steps
        drop = row.pose.timing == "next"
        if len(steps[row.language.keys[0]]) <= drop:
            raise EpisodeError("it has no step" + " whose pose is commanded" * drop)
        poses, commands, openings, gripper_commands = read_motion(row, steps)
        instruction, *others = read_sentences(row.language, steps)
        kept = slice(1, None) if drop else slice(None)
        return Episode(
            stamps_s=np.arange(len(poses) - drop) / row.control_hz,
            poses=poses[:-1] if drop else poses,
            command_poses=None if commands is None else commands[kept],
            gripper_openings=openings[kept],
            gripper_commands=None if gripper_commands is None else gripper_commands[kept],
            instruction=instruction,
            other_instructions=tuple(others),
            images=self._videos(steps, kept),
            state_known=row.state_known,
            robot=row.robot,
            source=self._source(record, index),
            notes=self._notes(),
        )

    def _videos(self, steps: Steps, kept: slice) -> dict[str, Video]:
        videos = {}
        for name, camera in self.row.cameras.items():
            spec = self._folder.features[STEPS + camera.key]
            video = open_camera(camera, steps[camera.key][kept], spec)
            if video is not None:
                videos[name] = video
            elif name == EXTERNAL:
                key = camera.key.rsplit("/", 1)[-1]
                raise EpisodeError(f"{key} is black in every step")
        return videos

    def _source(self, record: RldsEpisode, index: int) -> dict[str, str]:
        source = {**self.dataset_version, "index": str(index), "row": self.row.name}
        if FILE_PATH in record.metadata:
            source["recorded_as"] = str(record.metadata[FILE_PATH])
        return source

    def _notes(self) -> str:
        notes = ["Stamps are counted, not recorded."]
        for name, camera in self.row.cameras.items():
            if camera.native_aspect:
                width, height = camera.native_aspect
                notes.append(f"Pictures of {name} are stored squashed, from {width}x{height}.")
        if not self.row.state_known:
            notes.append("Poses are sums of commanded deltas from the identity.")
        if self.row.pose.timing == "next":
            notes.append("Poses are the commands of the step before; the first step is left out.")
        return " ".join(notes)

    def _needed_keys(self) -> tuple[str, ...]:
        row = self.row
        of_step = [
            *motion_keys(row),
            *row.language.keys,
            *(camera.key for camera in row.cameras.values()),
        ]
        named = [FILE_PATH] if FILE_PATH in self._folder.features else []
        of_episode = [*selector_keys(self._selectors), *named]
        return tuple(dict.fromkeys([*(STEPS + key for key in of_step), *of_episode]))

    def _decided(self, entry: str) -> PoseRule | str:
        rule = getattr(self.row, entry)
        if not pose_rules.needs_detection(rule):
            return rule
        return pose_rules.decide(rule, self._some(rule), f"{self._where}: {entry}")

    def _some(self, rule: PoseRule) -> Iterator[Steps]:
        """Numbers of some episodes, evenly over the split; damaged ones are passed over."""
        keys = [STEPS + key for key in pose_rules.detection_keys(rule)]
        count = min(len(self), pose_rules.EPISODES)
        for index in np.linspace(0, len(self) - 1, count).round().astype(int):
            try:
                yield self._folder.read(int(index), keys).steps
            except DataFileError:
                continue


def _check_source(row: Row, folder: RldsFolder) -> None:
    if folder.name not in (row.source.name, *row.source.also_called):
        raise DataFileError(
            f"{folder.path}: holds the dataset {folder.name!r}; the row {row.name} describes "
            f"{row.source.name!r}: name the row that fits the folder, or, if it is the same data, "
            "add the name in a table of your own (source: {also_called: [...]})"
        )
    if folder.version not in row.source.versions:
        known = ", ".join(row.source.versions)
        raise DataFileError(
            f"{folder.path}: version {folder.version} of {folder.name}; the row {row.name} "
            f"describes {known}: if the layout is the same, add the version in a table of your own "
            "(source: {versions: [...]})"
        )


class BridgeReader(OxeReader):
    """The episodes of a BridgeData V2 folder in RLDS form, by the row `bridge`; see OxeReader.

    What the numbers mean, and where that is from:

    * `observation/state` (7,): x y z [m] of ee_gripper_link in base_link; three Euler angles [rad];
      gripper, 1 = open, which may exceed 1 a little. `action` (7,): translation, Euler angles,
      gripper. The dataset's own features.json describes them wrongly (text left from a template).
    * The Euler angles are of R_ee D^T, with D the robot's default rotation, and turn about the
      fixed axes x, y, z in this order (R = Rz Ry Rx). From github.com/rail-berkeley/
      bridge_data_robot, widowx_envs/utils/transformation_utils.py (transform2state,
      eulerAnglesToRotationMatrix) and widowx_controller.py (DEFAULT_ROTATION). test_bridge.py finds
      the same order by comparing recorded actions with pose differences.
    * An action's translation and rotation are in base axes (same file, transform2action_local).
      Poses are what SPEAR trains on; of the action only the gripper command is kept.
    * 5 steps a second (bridge_data_robot moves for 0.2 s a step). The files hold no stamps.
    * `image_0` is the camera over the shoulder that every scene has; `image_1` and `image_2` look
      from elsewhere, `image_3` is undocumented. Octo (github.com/octo-models/octo, data/oxe) uses
      image_0 first as well. There is no wrist camera. A camera that an episode lacks is black, and
      only its pixels show that: in Octo's sample every `has_image_k` is 0 although three cameras
      are there.
    * Frames were squashed to a square from 640x480; they are kept as stored.
    * Where language is missing the instruction is empty, and the episode is refused.

    Raises:
        DataFileError: the folder cannot be used.
    """

    def __init__(self, path: str | Path, split: str = "train"):
        super().__init__(load_table()["bridge"], path, split, any_name=True)


# Motion: poses and gripper --------------------------------------------------------------------


def motion_keys(rules: MotionRules) -> tuple[str, ...]:
    """The features of a step that `read_motion` needs."""
    command = () if rules.command == REACHED else pose_keys(rules.command)
    both = (rules.gripper_opening, rules.gripper_command)
    grippers = [rule.key for rule in both if isinstance(rule, Columns)]
    return tuple(dict.fromkeys([*pose_keys(rules.pose), *command, *grippers]))


def read_motion(rules: MotionRules, steps: Steps):
    """Poses (T, 7), commanded poses or None, openings (T,), gripper commands or None.

    None stands for what is not recorded. Openings are 0 closed .. 1 open; where nothing measures
    the gripper, it is taken to be where it is commanded to be.

    Raises:
        EpisodeError: a number is not finite, or none that the arm or the gripper can have.
    """
    poses = read_poses(rules.pose, steps)
    command_poses = None if rules.command == REACHED else read_poses(rules.command, steps)
    return poses, command_poses, *read_gripper(rules, steps, len(poses))


def read_gripper(rules: MotionRules, steps: Steps, count: int) -> tuple[NDArray, NDArray | None]:
    """The last two of `read_motion`, for an episode of `count` steps."""
    openings = commands = None
    if rules.gripper_opening != FROM_COMMAND:
        openings = _opening(rules.gripper_opening, steps, count)
    if isinstance(rules.gripper_command, GripperEvents):
        commands = follow_events(rules.gripper_command, steps, openings)
    elif rules.gripper_command != FROM_MEASURED:
        commands = _opening(rules.gripper_command, steps, count)
    return (commands if openings is None else openings), commands


def linear_opening(rule: LinearGripper, values: NDArray, where: str) -> NDArray:
    """(T,) 0 .. 1 from (T,) numbers; `where` names them in messages. Raises EpisodeError."""
    shares = (np.asarray(values, float) - rule.closed_at) / (rule.open_at - rule.closed_at)
    margin = np.inf if rule.saturate else rule.margin
    # The comparison is false for NaN too.
    bad = ~(np.abs(shares - 0.5) <= 0.5 + margin) | ~np.isfinite(shares)
    if bad.any():
        step = int(np.argmax(bad))
        raise EpisodeError(
            f"gripper {where}[{step}] is {values[step]:.3f}; it must be {rule.closed_at:g} "
            f"(closed) to {rule.open_at:g} (open)"
        )
    return np.clip(shares, GRIPPER_CLOSED, GRIPPER_OPEN)


def follow_events(rule: GripperEvents, steps: Steps, openings: NDArray | None) -> NDArray:
    """(T,) commands from events: each holds until the next one.

    What was commanded before the first event is not recorded. It is what the measured opening is
    nearer to in the first step; without a measurement, the opposite of the first event, for a
    gripper that is commanded to close was open; without any event, open.

    Raises:
        EpisodeError: a number is not finite.
    """
    values = _column(rule, steps)
    bad = ~np.isfinite(values)
    if bad.any():
        raise EpisodeError(f"{rule.key}[{int(np.argmax(bad))}] has a number that is not finite")
    closes, opens = values > rule.threshold, values < -rule.threshold
    commanded = np.flatnonzero(closes | opens)
    if openings is not None:
        initial = GRIPPER_OPEN if openings[0] >= 0.5 else GRIPPER_CLOSED
    else:
        initial = GRIPPER_CLOSED if len(commanded) and opens[commanded[0]] else GRIPPER_OPEN
    commands = np.where(opens, GRIPPER_OPEN, GRIPPER_CLOSED)
    newest = np.searchsorted(commanded, np.arange(len(values)), side="right") - 1
    return np.where(newest < 0, initial, commands[commanded[newest]] if len(commanded) else initial)


def _opening(rule: LinearGripper | ConstantGripper, steps: Steps, count: int) -> NDArray:
    if isinstance(rule, ConstantGripper):
        return np.full(count, rule.opening)
    return linear_opening(rule, _column(rule, steps), rule.key.rsplit("/", 1)[-1])


def _column(rule: Columns, steps: Steps) -> NDArray:
    values = np.asarray(steps[rule.key], float)
    values = values.reshape(len(values), -1)
    if values.shape[1] <= rule.first_column:
        raise EpisodeError(
            f"{rule.key} has {values.shape[1]} numbers, none in column {rule.first_column}; the "
            "dataset is not the one that the table describes"
        )
    return values[:, rule.first_column]


# Sentences ------------------------------------------------------------------------------------


def read_sentences(rule: Language, steps: Steps) -> tuple[str, ...]:
    """The instruction, then further sentences for the same motion, each once; never empty ones.

    Raises:
        EpisodeError: there is no sentence, or a feature holds several: one episode is one task.
    """
    found: list[str] = []
    for key in rule.keys:
        values = steps[key]
        if rule.encoding == "code_units":
            values = [text_from_code_units(units, key) for units in np.unique(values, axis=0)]
        sentences = sorted({tidy(str(value)) for value in values} - {""})
        if len(sentences) > 1:
            raise EpisodeError(f"{key}: {len(sentences)} different instructions, not one")
        found += [sentence for sentence in sentences if sentence not in found]
    if not found:
        raise EpisodeError("the instruction is empty; a policy needs a sentence")
    return tuple(found)


def tidy(sentence: str) -> str:
    """Words apart by one space each, where underscores or line ends stood too."""
    return " ".join(sentence.replace("_", " ").split())


def text_from_code_units(units: NDArray, key: str = "text") -> str:
    """The text of UTF-8 bytes that are stored as integers and end with the first zero.

    Raises:
        EpisodeError: they are no UTF-8.
    """
    units = np.asarray(units).ravel()
    zeros = np.flatnonzero(units == 0)
    units = units[: zeros[0]] if len(zeros) else units
    try:
        return bytes(units.tolist()).decode()
    except ValueError:  # a number that is no byte, or bytes that are no text
        raise EpisodeError(f"{key}: its numbers are no UTF-8 text") from None


# Which episodes a row takes -------------------------------------------------------------------


def selector_keys(rules: Iterable[Condition | Subset]) -> tuple[str, ...]:
    """The features of an episode that `select` needs."""
    return tuple(dict.fromkeys(rule.key for rule in rules))


def select(rules: Iterable[Condition | Subset], metadata: Mapping[str, Any]) -> None:
    """Let an episode pass that every rule takes.

    Raises:
        NotSelectedError: the text names the rule and the episode's value.
    """
    for rule in rules:
        value = metadata[rule.key]
        wanted, holds = _wanted(rule, value)
        if not holds:
            raise NotSelectedError(
                f"not selected: {rule.key} is {str(value)!r}, wanted is {wanted}"
            )


def _wanted(rule: Condition | Subset, value: Any) -> tuple[str, bool]:
    if isinstance(rule, Subset):
        rule = Condition(key=rule.key, matches=rule.matches)
    if rule.equals is not None:
        return str(rule.equals), bool(value) == rule.equals
    if rule.contains is not None:
        return f"a text with {rule.contains!r}", rule.contains in str(value)
    return f"a text like {rule.matches!r}", re.search(rule.matches, str(value)) is not None


# Pictures: decoded one by one, always RGB, black cameras left out -----------------------------


def open_camera(camera: Camera, pictures: list[bytes], spec: FeatureSpec) -> Video | None:
    """The pictures of one camera, or None where every one is black: the episode lacks the camera.

    Raises:
        EpisodeError: the first picture is damaged; further ones raise it when
            they are asked for.
    """
    try:
        video = EncodedVideo(pictures, partial(_decode, spec, camera.channels == "bgr"))
        return None if _is_black(video) else video
    except EpisodeError as error:
        raise EpisodeError(f"{camera.key}: {error}") from None


def _decode(spec: FeatureSpec, swapped: bool, data: bytes) -> NDArray[np.uint8]:
    picture = spec.picture(data)
    # "swapped" says that what the file calls red is blue.
    return np.ascontiguousarray(picture[..., ::-1] if swapped else picture)


def _is_black(video: Video) -> bool:
    # A camera that is there shows something in its first picture, so mostly one is decoded.
    return not any(video[step].any() for step in range(len(video)))


# What a store says about itself ---------------------------------------------------------------


def store_metadata(reader: OxeReader) -> StoreMetadata:
    """The metadata of the store that `reader` is imported to, before anything is counted."""
    row = reader.row
    return StoreMetadata(
        name=reader.name,
        robot=row.robot,
        control_hz=row.control_hz,
        cameras=tuple(
            CameraMetadata(name, _aspect(row.cameras[name].native_aspect))
            for name in PICTURE_SIZES
            if name in row.cameras
        ),
        action_from=row.action_from,
        gripper_from=row.gripper_from,
        state_known=row.state_known,
        reader="RLDS by the mixture table",
        row=row.name,
        row_hash=reader.row_hash,
        source=_source(reader),
    )


def _aspect(native: tuple[int, ...] | None) -> float | None:
    return None if native is None else native[0] / native[1]


def _source(reader: OxeReader) -> dict[str, Any]:
    row = reader.row
    return {
        **reader.dataset_version,
        "place": row.source.place or f"gs://gresearch/robotics/{row.source.name}",
        "subset": plain(reader.subset),
        "conditions": plain(row.conditions),
        "pose": plain(row.pose),
        "command": plain(row.command),
        "notes": list(row.notes),
    }
