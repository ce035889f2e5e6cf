"""Episodes of any row of the mixture table, from the RLDS files of its data set."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from spear_policy.inference.episode import Episode, EpisodeError, Video
from spear_training.data.oxe import rotation_order
from spear_training.data.oxe.cameras import decoded, open_camera
from spear_training.data.oxe.grippers import gripper_keys, read_gripper
from spear_training.data.oxe.language import read_sentences
from spear_training.data.oxe.pose_rules import PoseRule, SummedDeltas
from spear_training.data.oxe.poses import Steps, pose_keys, read_poses
from spear_training.data.oxe.row import Row
from spear_training.data.oxe.rules import FROM_MEASURED, REACHED, Subset
from spear_training.data.oxe.selectors import select, selector_keys
from spear_training.data.reader import DataFileError
from spear_training.data.rlds import RldsEpisode, RldsFolder
from spear_training.data.tfds_features import STEPS

FILE_PATH = "episode_metadata/file_path"
EXTERNAL = "external"


class OxeReader:
    """The episodes of one data set by its row of the mixture table; see EpisodeReader.

    Episodes that the row does not take raise NotSelected. Where the row leaves the order of its
    rotations to the data, some episodes are read at once to find it.

    Attributes:
        row: the rules, with every order decided.
        row_hash: of the row as it stands in the table.
        state_known, action_from, gripper_from: what the row says of every episode, in the words of
            a store's facts.

    Raises:
        DataFileError: the folder cannot be used or holds another data set, the row has
            unconfirmed facts or no such subset, or the data do not tell the order of rotations.
    """

    def __init__(
        self,
        row: Row,
        path: str | Path,
        split: str = "train",
        *,
        subset: str | None = None,
        lazy_images: bool = True,
        any_name: bool = False,
    ):
        """Open a folder.

        Args:
            row: of the mixture table.
            path: folder with dataset_info.json, features.json and the TFRecord files.
            split: of the data set.
            subset: one of the row's `subsets`, or None for all.
            lazy_images: leave pictures encoded until they are asked for.
            any_name: take the folder whatever its dataset_info.json calls it.
        """
        row.require_confirmed()
        self._folder = RldsFolder(path, split)
        if not any_name:
            _judge_source(row, self._folder)
        asked = row.require_subset(subset) if subset else None
        self._subsets = tuple(part for part in (row.subset, asked) if part)
        self._selectors = (*row.conditions, *self._subsets)
        self._lazy_images = lazy_images
        self._where = f"row {row.name}"
        self.row, self.row_hash = row, row.hash
        self.row = replace(row, pose=self._decided("pose"), command=self._decided("command"))
        self._keys = self._needed_keys()

    @property
    def name(self) -> str:
        """Data set, subset and split."""
        subsets = [each.name for each in self._subsets]
        return "-".join([self._folder.name, *subsets, self._folder.split])

    @property
    def subset(self) -> Subset | None:
        """The part of the data set that is taken, or None for all of it."""
        return self._subsets[-1] if self._subsets else None

    @property
    def folder_facts(self) -> dict[str, str]:
        """Name, version and split of the data set."""
        folder = self._folder
        return {"dataset": folder.name, "version": folder.version, "split": folder.split}

    @property
    def state_known(self) -> bool:
        """False where poses are sums of deltas."""
        return not isinstance(self.row.pose, SummedDeltas)

    @property
    def action_from(self) -> str:
        """Whether episodes have commanded poses: "commanded", or else "reached"."""
        return "reached" if self.row.command == REACHED else "commanded"

    @property
    def gripper_from(self) -> str:
        """Whether episodes have gripper commands: "commanded", or else "measured"."""
        return "measured" if self.row.gripper_command == FROM_MEASURED else "commanded"

    def __len__(self) -> int:
        return len(self._folder)

    def read(self, index: int) -> Episode:
        """Episode `index`.

        Raises:
            NotSelected: the row does not take it.
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
            raise EpisodeError("it has no step" + " whose pose is told" * drop)
        poses = read_poses(row.pose, steps)
        commands = None if row.command == REACHED else read_poses(row.command, steps)
        openings, gripper_commands = read_gripper(row, steps, len(poses))
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
            state_known=self.state_known,
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
                videos[name] = video if self._lazy_images else decoded(video)
            elif name == EXTERNAL:
                key = camera.key.rsplit("/", 1)[-1]
                raise EpisodeError(f"{key} is black in every step")
        return videos

    def _source(self, record: RldsEpisode, index: int) -> dict[str, str]:
        source = {**self.folder_facts, "index": str(index), "row": self.row.name}
        if FILE_PATH in record.metadata:
            source["recorded_as"] = str(record.metadata[FILE_PATH])
        return source

    def _notes(self) -> str:
        notes = ["Stamps are counted, not recorded."]
        for name, camera in self.row.cameras.items():
            if camera.native_aspect:
                width, height = camera.native_aspect
                notes.append(f"Pictures of {name} are stored squashed, from {width}x{height}.")
        if not self.state_known:
            notes.append("Poses are sums of commanded deltas from the identity.")
        if self.row.pose.timing == "next":
            notes.append("Poses are the commands of the step before; the first step is left out.")
        return " ".join(notes)

    def _needed_keys(self) -> tuple[str, ...]:
        row = self.row
        of_step = [
            *pose_keys(row.pose),
            *(() if row.command == REACHED else pose_keys(row.command)),
            *gripper_keys(row),
            *row.language.keys,
            *(camera.key for camera in row.cameras.values()),
        ]
        of_episode = [*selector_keys(self._selectors)]
        if FILE_PATH in self._folder.features:
            of_episode.append(FILE_PATH)
        return tuple(dict.fromkeys([*(STEPS + key for key in of_step), *of_episode]))

    def _decided(self, entry: str) -> PoseRule | str:
        rule = getattr(self.row, entry)
        if not rotation_order.needs_detection(rule):
            return rule
        return rotation_order.decide(rule, self._some(rule), f"{self._where}: {entry}")

    def _some(self, rule: PoseRule) -> Iterator[Steps]:
        """Numbers of some episodes, evenly over the split; damaged ones are passed over."""
        keys = [STEPS + key for key in rotation_order.detection_keys(rule)]
        count = min(len(self), rotation_order.EPISODES)
        for index in np.linspace(0, len(self) - 1, count).round().astype(int):
            try:
                yield self._folder.read(int(index), keys).steps
            except DataFileError:
                continue


def _judge_source(row: Row, folder: RldsFolder) -> None:
    if folder.name not in (row.source.name, *row.source.also_called):
        raise DataFileError(
            f"{folder.path}: holds the data set {folder.name!r}; the row {row.name} describes "
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
