r"""make_checkpoint: put a SPEAR checkpoint together, from public weights or from nothing.

Example: ros2 run spear_policy make_checkpoint --preset tiny --output checkpoints/tiny
         ros2 run spear_policy make_checkpoint --preset spear1 --paligemma paligemma-3b-pt-224 \
             --moge moge-vitl/model.pt --output checkpoints/start

What no given file fills is random, so such a checkpoint is where training begins. Its card says
`untrained` and its statistics are a guess: a table-top in front of the robot.
"""

import argparse
import sys
from pathlib import Path

import torch

from spear_policy.inference.model_card import CardCamera, ModelCard
from spear_policy.inference.spear_engine import Policy, save
from spear_policy.inference.statistics import Range, Statistics, statistics_hash
from spear_policy.model.checkpoint import WEIGHTS
from spear_policy.model.config import PRESETS, ModelConfig, preset
from spear_policy.model.public_weights import load_moge, load_paligemma, load_pi0_expert
from spear_policy.model.spear import build
from spear_policy.model.tokenizer import TextTokenizer, train_tokenizer

# Steps of up to 5 cm, a table of 60 x 80 cm. A trained checkpoint has those of its data.
GUESSED_STATISTICS = Statistics(
    scheme="quantile",
    translation=Range((-0.05,) * 3, (0.05,) * 3, (0.0,) * 3, (0.02,) * 3),
    position=Range((0.2, -0.4, 0.0), (0.8, 0.4, 0.6), (0.5, 0.0, 0.3), (0.15, 0.2, 0.15)),
)
# A Franka's gripper points down at half a turn about x, a WidowX's frame then has no turn.
REFERENCES_XYZW = {"franka": (1.0, 0.0, 0.0, 0.0), "widowx": (0.0, 0.0, 0.0, 1.0)}


def untrained_card(config: ModelConfig, checkpoint_id: str) -> ModelCard:
    """The card of a model that has seen no demonstration."""
    return ModelCard(
        checkpoint_id=checkpoint_id,
        recipe="untrained",
        git_revision="",
        datasets=(),
        dt_s=0.2,
        chunk_length=config.chunk_length,
        anchor="measured",
        cameras=tuple(CardCamera(camera.name, "auto", None) for camera in config.cameras),
        reference_orientations_xyzw=REFERENCES_XYZW,
        statistics=GUESSED_STATISTICS,
        statistics_hash=statistics_hash(GUESSED_STATISTICS),
        file_hashes={},
    )


def untrained_policy(config: ModelConfig, seed: int = 0) -> Policy:
    """A model with random weights and a tokenizer of its own, for small presets."""
    card = untrained_card(config, f"{config.name}-untrained-{seed}")
    return Policy(build(config, seed=seed), train_tokenizer(config.vocabulary), card)


def main() -> None:
    """Write the folder, or say in one sentence what is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", required=True, help=f"one of {', '.join(PRESETS)}")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of random weights")
    parser.add_argument("--paligemma", type=Path, help="folder of a PaliGemma from Hugging Face")
    parser.add_argument("--moge", type=Path, help="model.pt of MoGe v1")
    parser.add_argument("--pi0-expert", type=Path, help="safetensors of a pi0 action expert")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args()
    try:
        card = _make(arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"make_checkpoint: {error}")
    print(f"{arguments.output}: {card.checkpoint_id}, weights {card.file_hashes[WEIGHTS][:12]}")


def _make(arguments):
    config = preset(arguments.preset)
    parts = [name for name in ("paligemma", "moge", "pi0_expert") if getattr(arguments, name)]
    if not parts:
        if config.vocabulary.size > 100_000:
            raise ValueError(f"{config.name} has PaliGemma's words: give --paligemma")
        return save(arguments.output, untrained_policy(config, arguments.seed))
    model = build(config, seed=arguments.seed, dtype=getattr(torch, arguments.dtype))
    if arguments.paligemma:
        load_paligemma(model, arguments.paligemma)
        tokenizer = TextTokenizer.from_file(
            arguments.paligemma / "tokenizer.json", config.vocabulary
        )
    else:
        tokenizer = train_tokenizer(config.vocabulary)
    if arguments.moge:
        load_moge(model, arguments.moge)
    if arguments.pi0_expert:
        left = load_pi0_expert(model, arguments.pi0_expert)
        print(f"not in {arguments.pi0_expert.name}, so random: {left}")
    card = untrained_card(config, f"{config.name}-" + "-".join(parts))
    return save(arguments.output, Policy(model, tokenizer, card))


if __name__ == "__main__":
    main()
