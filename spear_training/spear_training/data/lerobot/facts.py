"""What a LeRobotDataset makes a store say about itself."""

from spear_training.data.lerobot.reader import LeRobotReader
from spear_training.data.oxe.row import plain
from spear_training.data.store.facts import PICTURE_SIZES, CameraFacts, StoreFacts


def store_facts(reader: LeRobotReader) -> StoreFacts:
    """The facts of the store that `reader` is imported to, before anything is counted."""
    keys = reader.keys
    return StoreFacts(
        name=reader.name,
        robot=keys.robot or reader.folder.robot or "unknown",
        control_hz=reader.control_hz,
        cameras=tuple(
            CameraFacts(name, keys.native_aspects.get(name))
            for name in PICTURE_SIZES
            if name in keys.cameras
        ),
        action_from=reader.action_from,
        gripper_from=reader.gripper_from,
        state_known=reader.state_known,
        reader=f"LeRobotDataset {reader.folder.version}",
        source={
            "cameras": dict(keys.cameras),
            "pose": plain(keys.pose),
            "command": plain(keys.command),
            "gripper_opening": plain(keys.gripper_opening),
            "gripper_command": plain(keys.gripper_command),
            "conditions": plain(keys.conditions),
        },
    )
