"""What a row of the mixture table makes a store say about itself."""

from typing import Any

from spear_training.data.oxe.reader import OxeReader
from spear_training.data.oxe.row import plain
from spear_training.data.store.facts import PICTURE_SIZES, CameraFacts, StoreFacts


def store_facts(reader: OxeReader) -> StoreFacts:
    """The facts of the store that `reader` is imported to, before anything is counted."""
    row = reader.row
    return StoreFacts(
        name=reader.name,
        robot=row.robot,
        control_hz=row.control_hz,
        cameras=tuple(
            CameraFacts(name, _aspect(row.cameras[name].native_aspect))
            for name in PICTURE_SIZES
            if name in row.cameras
        ),
        action_from=reader.action_from,
        gripper_from=reader.gripper_from,
        state_known=reader.state_known,
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
        **reader.folder_facts,
        "place": row.source.place or f"gs://gresearch/robotics/{row.source.name}",
        "subset": plain(reader.subset),
        "conditions": plain(row.conditions),
        "pose": plain(row.pose),
        "command": plain(row.command),
        "notes": list(row.notes),
    }
