"""The columns of a store's data files, and how an episode becomes rows of them."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spear_policy.inference.episode import Episode, EpisodeError
from spear_training.data.lerobot.layout import INDEX_FEATURES
from spear_training.data.store.facts import StoreFacts

STATE, ACTION, STAMP = "observation.state", "action", "observation.stamp_s"
PICTURE_PREFIX = "observation.images."
# Last and side by side: their values are known only when all groups are there.
NUMBERS = ("episode_index", "index", "task_index")
STATE_NAMES = ("x", "y", "z", "qx", "qy", "qz", "qw", "gripper")
WIDTH = len(STATE_NAMES)

_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_VECTOR = pa.list_(pa.float32(), WIDTH)


def picture_column(camera: str) -> str:
    """The column of a camera's pictures."""
    return PICTURE_PREFIX + camera


def file_schema(facts: StoreFacts) -> pa.Schema:
    """The Arrow schema of every data file."""
    pictures = [(picture_column(camera), _PICTURE) for camera in facts.camera_names]
    return pa.schema(
        [
            *pictures,
            (STATE, _VECTOR),
            (ACTION, _VECTOR),
            (STAMP, pa.float64()),
            ("timestamp", pa.float32()),
            ("frame_index", pa.int64()),
            *((name, pa.int64()) for name in NUMBERS),
        ]
    )


def lerobot_features(facts: StoreFacts) -> dict[str, dict]:
    """The features of meta/info.json; a column that is not named there LeRobot refuses."""
    vector = {"dtype": "float32", "shape": [WIDTH], "names": list(STATE_NAMES)}
    pictures = {
        picture_column(camera.name): {
            "dtype": "image",
            "shape": [camera.size[1], camera.size[0], 3],
            "names": ["height", "width", "channels"],
        }
        for camera in facts.cameras
    }
    stamp = {"dtype": "float64", "shape": [1], "names": None}
    return pictures | {STATE: vector, ACTION: dict(vector), STAMP: stamp} | INDEX_FEATURES


def episode_columns(episode: Episode, facts: StoreFacts) -> dict[str, NDArray]:
    """An episode's numbers: states and actions (T, 8) float32, stamps (T,) float64 from 0 [s].

    Raises:
        EpisodeError: it does not hold what the store says of all its episodes.
    """
    _check(episode, facts)
    openings = episode.gripper_openings
    commands = episode.gripper_commands if facts.gripper_from == "commanded" else openings
    targets = episode.command_poses if facts.action_from == "commanded" else episode.poses
    return {
        STATE: np.column_stack([episode.poses, openings]).astype(np.float32),
        ACTION: np.column_stack([targets, commands]).astype(np.float32),
        STAMP: episode.stamps_s - episode.stamps_s[0],
    }


def episode_table(
    columns: dict[str, NDArray],
    jpegs: dict[str, list[bytes]],
    numbers: dict[str, NDArray],
    facts: StoreFacts,
) -> pa.Table:
    """Rows of a data file.

    Args:
        columns: see `episode_columns`.
        jpegs: T encoded pictures by camera.
        numbers: the NUMBERS, each (T,).
        facts: of the store.
    """
    steps = len(columns[STAMP])
    frames = np.arange(steps)
    arrays: list[pa.Array] = []
    for camera in facts.camera_names:
        paths = pa.nulls(steps, pa.string())
        encoded = pa.array(jpegs[camera], pa.binary())
        arrays.append(pa.StructArray.from_arrays([encoded, paths], _PICTURE.names))
    for name in (STATE, ACTION):
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(columns[name].ravel()), WIDTH))
    arrays += [
        pa.array(columns[STAMP]),
        pa.array((frames / facts.control_hz).astype(np.float32)),
        pa.array(frames),
        *(pa.array(np.asarray(numbers[name], np.int64)) for name in NUMBERS),
    ]
    return pa.Table.from_arrays(arrays, schema=file_schema(facts))


def _check(episode: Episode, facts: StoreFacts) -> None:
    wanting = []
    if facts.action_from == "commanded" and episode.command_poses is None:
        wanting.append("it has no commanded poses, but the store's actions are commanded")
    if facts.gripper_from == "commanded" and episode.gripper_commands is None:
        wanting.append("it has no gripper commands, but the store's are commanded")
    if facts.state_known != episode.state_known:
        wanting.append(f"its state_known is {episode.state_known}, the store's is not")
    if facts.camera_names[0] not in episode.images:
        held = ", ".join(episode.images) or "none"
        wanting.append(f"it has no camera {facts.camera_names[0]!r} (it has {held})")
    if wanting:
        raise EpisodeError(f"{episode.name}: {'; '.join(wanting)}")
