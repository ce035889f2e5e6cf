"""One moment of a stored episode: what the robot saw, where it was, what it is to do."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spear_policy.inference.episode import binary_gripper
from spear_training.data.store.facts import WRIST
from spear_training.data.store.frames import FrameStore
from spear_training.data.store.poses import stored_poses
from spear_training.data.targets import DT_S, STEPS, Reference, chunk_targets


@dataclass(frozen=True, eq=False)
class Moment:
    """A training sample before anything is normalised.

    Attributes:
        images: by camera, (H, W, 3) uint8 RGB; a camera that the data set lacks is not there.
        pose: (7,) measured, base frame [m], xyzw.
        gripper_opening: measured, 0 closed .. 1 open.
        translations_m: (N, 3), rotations_xyzw: (N, 4), grippers: (N,) of the chunk, see targets.
        sentences: all that the episode has.
        state_known: False where `pose` is only a sum of deltas.
    """

    images: dict[str, NDArray[np.uint8]]
    pose: NDArray[np.float64]
    gripper_opening: float
    translations_m: NDArray[np.float64]
    rotations_xyzw: NDArray[np.float64]
    grippers: NDArray[np.float64]
    sentences: tuple[str, ...]
    state_known: bool


class MomentReader:
    """The moments of one store by the number of their frame.

    Attributes:
        store: what is read.
    """

    def __init__(
        self,
        store: FrameStore,
        steps: int = STEPS,
        dt_s: float = DT_S,
        reference: Reference = "anchor",
    ):
        """Take a store and the shape of a chunk, see `targets.chunk_targets`."""
        self.store = store
        self._steps, self._dt_s, self._reference = steps, dt_s, reference

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, frame: int) -> Moment:
        """Read moment `frame`.

        Raises:
            DataFileError: a file of the store is damaged there.
            IndexError: there is no such frame.
        """
        store = self.store
        if not 0 <= frame < len(store):
            raise IndexError(f"{store.facts.name} has no frame {frame}: 0..{len(store) - 1}")
        episode = int(store.episode_of[frame])
        first = int(store.episodes.first_frame[episode])
        end = first + int(store.episodes.length[episode])
        stamps = np.asarray(store.stamps_s[first:end], float)
        now = stamps[frame - first]
        # One sample more than the chunk reaches, to interpolate its last step.
        beyond = int(np.searchsorted(stamps, now + self._steps * self._dt_s)) + 1
        part = slice(frame, min(first + beyond, end))
        measured = stored_poses(stamps[frame - first : beyond], store.states[part])
        told = measured
        if store.facts.action_from == "commanded":
            told = stored_poses(measured.stamps_s, store.actions[part])
        # A gripper on its way takes what it reaches, which may be after the chunk.
        commands = binary_gripper(store.actions[first:end, 7])[frame - first : beyond]
        chunk = chunk_targets(
            measured, told, commands, [now], self._steps, self._dt_s, self._reference
        )
        return Moment(
            images={name: store.image(frame, name) for name in self._seen(episode)},
            pose=measured.poses[0],
            gripper_opening=float(store.states[frame, 7]),
            translations_m=chunk.translations_m[0],
            rotations_xyzw=chunk.rotations_xyzw[0],
            grippers=chunk.grippers[0],
            sentences=store.episodes.sentences(episode),
            state_known=store.facts.state_known,
        )

    def _seen(self, episode: int) -> tuple[str, ...]:
        """Cameras of which the episode has more than black pictures."""
        names = self.store.facts.camera_names
        if self.store.episodes.black_wrist[episode]:
            return tuple(name for name in names if name != WRIST)
        return names
