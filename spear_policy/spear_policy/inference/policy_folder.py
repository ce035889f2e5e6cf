"""A checkpoint folder as something that can act: weights, tokenizer and card that agree."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from spear_policy.inference.model_card import ModelCard
from spear_policy.model.checkpoints.weights import load_weights, save_weights
from spear_policy.model.spear import SpearModel
from spear_policy.model.text.tokenizer import TextTokenizer

CARD = "card.json"


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
    """Load a checkpoint folder (DESIGN section 8).

    Args:
        folder: with model.safetensors, config.json, card.json and the tokenizer's files.
        dtype: of the weights; as stored when not given.
        progress: show it on the terminal.

    Raises:
        ValueError: something is missing, broken, or does not fit the rest; names file, key and
            mend. Nothing is half-loaded.
    """
    folder = Path(folder)
    card = ModelCard.read(folder / CARD)
    model, tokenizer = load_weights(
        folder, device=device, dtype=dtype, expected_hash=card.weights_hash, progress=progress
    )
    card.check(model.config)
    return Policy(model.eval(), tokenizer, card)


def save(folder: Path | str, policy: Policy) -> ModelCard:
    """Write a checkpoint folder; the card comes last, with the hash of the weights.

    Returns:
        The card as written.

    Raises:
        ValueError: the card does not fit the model; nothing is written.
        OSError: the disk is full or read-only.
    """
    folder = Path(folder)
    policy.card.check(policy.model.config)
    weights_hash = save_weights(folder, policy.model, policy.tokenizer)
    card = replace(policy.card, weights_hash=weights_hash)
    card.write(folder / CARD)
    return card


def choose_device(name: str) -> torch.device:
    """The device of that name; auto takes a GPU when there is one.

    Raises:
        ValueError: a GPU is asked for and torch sees none.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise ValueError("device is cuda, but torch sees no GPU; set it to cpu or mend the driver")
    return torch.device(("cuda" if found else "cpu") if name == "auto" else name)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of that name; auto is bfloat16 on a GPU and float32 on a CPU."""
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
