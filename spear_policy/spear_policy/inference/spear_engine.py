"""Engine `spear`: the learned model behind the policy node.

A checkpoint folder becomes a `Policy` (model, tokenizer and card that agree), and a policy bound to
a robot becomes the engine.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spear_policy.geometry.poses import Chunk, as_array
from spear_policy.inference.chunk_runner import ChunkRunner
from spear_policy.inference.engine import CameraSpec, EngineCard, Observation
from spear_policy.inference.image_geometry import fit
from spear_policy.inference.model_card import CARD_FILE, ModelCard
from spear_policy.inference.statistics import (
    RangeReport,
    decode_chunk,
    encode_state,
    narrow_axes,
    seam_warning,
)
from spear_policy.model.checkpoint import load_weights, save_weights
from spear_policy.model.prompts import prompt_ids
from spear_policy.model.spear import SpearModel
from spear_policy.model.tokenizer import TextTokenizer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policy:
    """What a checkpoint folder holds."""

    model: SpearModel
    tokenizer: TextTokenizer
    card: ModelCard


def load(
    folder: Path | str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    progress: bool = False,
) -> Policy:
    """Load a checkpoint folder.

    Args:
        folder: with model.safetensors, config.json, card.json and the tokenizer's files.
        dtype: of the weights; as stored when not given.
        progress: show it on the terminal.

    Raises:
        ValueError: something is missing, broken, or does not fit the rest; names file, key and
            fix. Nothing is half-loaded.
    """
    folder = Path(folder)
    card = ModelCard.read(folder / CARD_FILE)
    model, tokenizer = load_weights(
        folder, device=device, dtype=dtype, expected_hashes=card.file_hashes, progress=progress
    )
    card.check(model.config)
    return Policy(model.eval(), tokenizer, card)


def save(folder: Path | str, policy: Policy) -> ModelCard:
    """Write a checkpoint folder; the card comes last, with the hashes of the others.

    Returns:
        The card as written.

    Raises:
        ValueError: the card does not fit the model; nothing is written.
        OSError: the disk is full or read-only.
    """
    folder = Path(folder)
    policy.card.check(policy.model.config)
    hashes = save_weights(folder, policy.model, policy.tokenizer)
    card = replace(policy.card, file_hashes=hashes)
    card.write(folder / CARD_FILE)
    return card


def choose_device(name: str) -> torch.device:
    """The device of that name; auto takes a GPU when there is one.

    Raises:
        ValueError: a GPU is asked for and torch sees none.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise ValueError("device is cuda, but torch sees no GPU; use cpu, or check the driver")
    return torch.device(("cuda" if found else "cpu") if name == "auto" else name)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of that name; auto is bfloat16 on a GPU and float32 on a CPU."""
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def from_parameters(params: Mapping[str, Any]) -> "SpearEngine":
    """The engine of policy_node's parameters. Raises ValueError or OSError."""
    absent = [name.strip() for name in params["absent_cameras"].split(",")]
    return SpearEngine.from_folder(
        params["checkpoint"],
        params["robot"],
        device=params["device"],
        dtype=params["weights_dtype"],
        threads=params["torch_threads"],
        seed=params["sampling_seed"],
        steps=params["denoising_steps"] or None,
        absent=tuple(name for name in absent if name),
        compile=params["compile"],
        graphs=params["cuda_graphs"],
    )


class SpearEngine:
    """Images, state and a sentence in, a chunk out; deterministic for a seed.

    Attributes:
        runner: the model's fast path.
    """

    def __init__(
        self,
        policy: Policy,
        robot: str,
        *,
        seed: int = 0,
        steps: int | None = None,
        absent: tuple[str, ...] = (),
        compile: bool = False,
        graphs: bool = False,
    ):
        """Bind a checkpoint to a robot.

        Args:
            policy: from `load`.
            robot: whose reference orientation of the card is used.
            seed: of the noise that chunks start from; taken anew at each `reset`.
            steps: denoising steps; the checkpoint's when not given.
            absent: cameras that this robot does not have; black images stand in.
            compile, graphs: see `ChunkRunner`.

        Raises:
            ValueError: the card does not know the robot, or see `ChunkRunner`.
        """
        self._policy, self._seed = policy, seed
        config, card = policy.model.config, policy.card
        self.runner = ChunkRunner(
            policy.model, steps=steps, absent=absent, compile=compile, graphs=graphs
        )
        for sentence in narrow_axes(card.statistics):
            _log.warning("%s: %s", card.checkpoint_id, sentence)
        self._reference_xyzw = card.reference_orientation_xyzw(robot)
        self._report = RangeReport("position", card.statistics.position)
        self._seam = ""
        self._cameras = [
            (camera, rule)
            for camera, rule in zip(config.cameras, card.cameras, strict=True)
            if camera.name not in absent
        ]
        self.card = EngineCard(
            "spear",
            card.checkpoint_id,
            tuple(CameraSpec(camera.name, 0, 0) for camera, _ in self._cameras),
            dt_s=card.dt_s,
            chunk_length=card.chunk_length,
            anchor_kind=card.anchor,
            statistics_hash=card.statistics_hash,
        )
        self._ids: list[int] = []
        self._generator = torch.Generator()

    @classmethod
    def from_folder(
        cls,
        folder: str,
        robot: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        threads: int = 0,
        **options,
    ) -> "SpearEngine":
        """Load a checkpoint folder onto a device.

        Args:
            folder, robot: which checkpoint, for which robot.
            device, dtype: see `choose_device` and `choose_dtype`.
            threads: of torch on a CPU, for the whole process; 0 leaves them alone.
            options: of the constructor.

        Raises:
            ValueError: see `load` and the constructor.
        """
        place = choose_device(device)
        if threads:
            torch.set_num_threads(threads)
        policy = load(folder, device=place, dtype=choose_dtype(dtype, place), progress=True)
        return cls(policy, robot, **options)

    def warm_up(self) -> None:
        """Run the model for every length of prompt; compile and record if asked to."""
        self.runner.warm_up()

    def reset(self, instruction: str) -> None:
        """Take a new instruction (a long one is cut, see `prompt_ids`) and begin the seed's noise.

        Raises:
            ValueError: the instruction is empty.
        """
        config = self._policy.model.config
        self._ids = prompt_ids(
            instruction, self._policy.tokenizer, config.vocabulary, config.max_text_tokens
        )
        self._generator.manual_seed(self._seed)

    def infer(self, observation: Observation) -> Chunk:
        """Sample the chunk for an observation.

        Raises:
            ValueError: a camera, a finite state or an instruction is missing, or the model's
                answer is not finite; the text names it.
        """
        if not self._ids:
            raise ValueError("no instruction yet: reset the engine with one")
        images = {c.name: self._picture(observation, c, rule) for c, rule in self._cameras}
        measured = self.card.anchor_kind == "measured"
        anchor = observation.measured if measured else observation.commanded
        statistics = self._policy.card.statistics
        state = encode_state(anchor, observation.gripper_opening, statistics, self._reference_xyzw)
        self._report.add(anchor.position_m)
        self._seam = seam_warning(anchor.orientation_xyzw, self._reference_xyzw)
        self.runner.load(images, self._ids, torch.from_numpy(state))
        flow = self.runner.sampler.flow
        noise = flow.noise(1, self.card.chunk_length, self._generator)
        translation, rotation_wxyz, gripper = flow.decode(self.runner.run(noise).cpu())
        deltas = decode_chunk(
            translation.numpy(),
            rotation_wxyz.numpy(),
            gripper[:, 0].numpy(),
            anchor,
            statistics,
            self._policy.model.config.flow.rotation_frame,
        )
        return Chunk(
            stamp_s=observation.stamp_s,
            dt_s=self.card.dt_s,
            translations_m=deltas.translations_m,
            rotations_xyzw=deltas.rotations_xyzw,
            gripper_openings=deltas.gripper_openings,
            anchor_measured=as_array(observation.measured),
            anchor_commanded=as_array(observation.commanded),
            anchor_kind=self.card.anchor_kind,
        )

    def figures(self) -> dict[str, str]:
        """What a person should know of the running model, for /diagnostics."""
        return {"outside_training_range": self._report.sentence(), "orientation": self._seam}

    @staticmethod
    def _picture(observation, camera, rule):
        """What the model sees of a camera, (3, H, W) uint8."""
        if camera.name not in observation.images:
            raise ValueError(f"there is no {camera.name} image: this checkpoint needs that camera")
        image = observation.images[camera.name]
        try:
            picture = fit(image, camera.width, camera.height, rule.fit, rule.native_aspect)
        except ValueError as error:
            raise ValueError(f"the {camera.name} camera: {error}") from None
        return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)
