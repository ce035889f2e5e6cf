"""BridgeData V2 in RLDS form, to episodes: the row `bridge` of the mixture table.

What the numbers mean, and where that is from:

* `observation/state` (7,): x y z [m] of ee_gripper_link in base_link; three Euler angles [rad];
  gripper, 1 = open, which may exceed 1 a little. `action` (7,): translation, Euler angles,
  gripper. The data set's own features.json describes them wrongly (text left from a template).
* The Euler angles are of R_ee D^T, with D the robot's default rotation, and turn about the fixed
  axes x, y, z in this order (R = Rz Ry Rx). From github.com/rail-berkeley/bridge_data_robot,
  widowx_envs/utils/transformation_utils.py (transform2state, eulerAnglesToRotationMatrix) and
  widowx_controller.py (DEFAULT_ROTATION). spear_training/test/test_bridge.py finds the same order
  by comparing recorded actions with pose differences.
* An action's translation and rotation are in base axes (same file, transform2action_local). Poses
  are what SPEAR trains on; of the action only the gripper command is kept.
* 5 steps a second (bridge_data_robot moves for 0.2 s a step). The files hold no stamps.
* `image_0` is the camera over the shoulder that every scene has; `image_1` and `image_2` look from
  elsewhere, `image_3` is undocumented. Octo (github.com/octo-models/octo, data/oxe) uses image_0
  first as well. There is no wrist camera. A camera that an episode lacks is black; whether it is
  there is told by its pixels, for in Octo's sample every `has_image_k` is 0 although three
  cameras are there.
* Frames were squashed to a square from 640x480; they are kept as stored.
* Where language is missing the instruction is empty: no episode for us.
"""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_training.data.oxe.poses import from_euler
from spear_training.data.oxe.reader import OxeReader
from spear_training.data.oxe.table import load_table

ROW = "bridge"


class BridgeReader(OxeReader):
    """The episodes of a BridgeData V2 folder in RLDS form, pictures decoded; see OxeReader.

    Raises:
        DataFileError: the folder cannot be used.
    """

    def __init__(self, path: str | Path, split: str = "train"):
        super().__init__(load_table()[ROW], path, split, lazy_images=False, any_name=True)


def bridge_poses(position_and_euler: ArrayLike) -> NDArray:
    """(T, 7) poses of ee_gripper_link from Bridge's (T, 6) x y z [m] and Euler angles [rad]."""
    return from_euler(load_table()[ROW].pose, np.asarray(position_and_euler, float))
