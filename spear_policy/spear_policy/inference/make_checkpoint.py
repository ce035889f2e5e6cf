r"""make_checkpoint: put a SPEAR checkpoint together, from public weights or from nothing.

Example: ros2 run spear_policy make_checkpoint --preset tiny --output checkpoints/tiny
         ros2 run spear_policy make_checkpoint --preset spear1 --paligemma paligemma-3b-pt-224 \
             --moge moge-vitl/model.pt --output checkpoints/start
         ros2 run spear_policy make_checkpoint --preset spear1 --stage1 checkpoints/vlm \
             --output checkpoints/stage2

What no given file fills is random and is named, so such a checkpoint is where training begins. Its
card says `untrained` and its statistics are a guess: a table-top in front of the robot.
"""

import argparse
import sys
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import torch

from spear_policy.inference.model_card import CardCamera, ModelCard
from spear_policy.inference.spear_engine import Policy, save
from spear_policy.inference.statistics import Range, Statistics, statistics_hash
from spear_policy.model.checkpoint import WEIGHTS
from spear_policy.model.config import PRESETS, ModelConfig, preset
from spear_policy.model.public_weights import (
    load_moge,
    load_paligemma,
    load_pi0_expert,
    load_stage1,
    with_layers_of_moge,
    with_parts_of_stage1,
)
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


def untrained_policy(
    config: ModelConfig,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    tokenizer: Path | None = None,
) -> Policy:
    """A model with random weights, and the given tokenizer.json or, for small presets, its own.

    Raises:
        ValueError: the tokenizer's file cannot be used.
    """
    words = config.vocabulary
    found = TextTokenizer.from_file(tokenizer, words) if tokenizer else train_tokenizer(words)
    card = untrained_card(config, f"{config.name}-untrained-{seed}")
    return Policy(build(config, seed=seed, dtype=dtype), found, card)


def main() -> None:
    """Write the folder, or say in one sentence what is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", required=True, help=f"one of {', '.join(PRESETS)}")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of random weights")
    parser.add_argument("--paligemma", type=Path, help="folder of a PaliGemma from Hugging Face")
    parser.add_argument("--moge", type=Path, help="model.pt of MoGe v1 or v2")
    parser.add_argument(
        "--stage1", type=Path, help="folder of a trained SPEAR-VLM; its sizes are the model's"
    )
    pi0 = parser.add_mutually_exclusive_group()
    pi0.add_argument("--pi0", type=Path, help="safetensors or folder of a pi0, for both its halves")
    pi0.add_argument("--pi0-expert", type=Path, help="the same, for its action expert alone")
    parser.add_argument(
        "--tokenizer", type=Path, help="tokenizer.json of PaliGemma; that of --paligemma if absent"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args()
    try:
        card = _make(arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"make_checkpoint: {error}")
    weights_hash = card.file_hashes[WEIGHTS]
    print(f"{arguments.output}: {card.checkpoint_id}, weights {weights_hash[:12]}")


def _make(arguments):
    config = preset(arguments.preset)
    sources = {
        name: getattr(arguments, name)
        for name in ("stage1", "paligemma", "moge", "pi0", "pi0_expert")
    }
    sources = {name: path for name, path in sources.items() if path}
    tokenizer = arguments.tokenizer
    if arguments.stage1:
        if sources.keys() - {"stage1", "pi0_expert"}:
            raise ValueError(
                "--stage1 has all but the expert: give --pi0-expert or nothing with it"
            )
        tokenizer = tokenizer or arguments.stage1 / "tokenizer.json"
        config = with_parts_of_stage1(config, arguments.stage1)
    if arguments.paligemma:
        if arguments.pi0:
            raise ValueError(
                "--paligemma and --pi0 both have words: give --pi0-expert with the first"
            )
        tokenizer = tokenizer or arguments.paligemma / "tokenizer.json"
    if not tokenizer and config.vocabulary.size > 100_000:
        raise ValueError(f"{config.name} has PaliGemma's words: give --paligemma or --tokenizer")
    if arguments.moge:
        config = with_layers_of_moge(config, arguments.moge)
    dtype = getattr(torch, arguments.dtype)
    policy = untrained_policy(config, arguments.seed, dtype, tokenizer)
    loaders = {
        "stage1": (load_stage1,),
        "paligemma": (load_paligemma,),
        "moge": (load_moge,),
        "pi0": (load_paligemma, load_pi0_expert),
        "pi0_expert": (load_pi0_expert,),
    }
    names = list(policy.model.state_dict())
    random = set(names)
    for name, path in sources.items():
        filled = [load(policy.model, path) for load in loaders[name]]
        random.difference_update(*(each.taken for each in filled))
        print(f"{path}: {sum(len(each.taken) for each in filled)} tensors")
    if sources:
        print(f"random: {', '.join(_parts(random, names)) or 'nothing'}")
        policy = replace(policy, card=untrained_card(config, f"{config.name}-{'-'.join(sources)}"))
    return save(arguments.output, policy)


def _parts(random: set[str], names: list[str]) -> list[str]:
    """What is random, by whole modules where all of a module is."""
    filled = {start for name in names if name not in random for start in _starts(name)}
    parts = (next(s for s in _starts(name) if s not in filled) for name in names if name in random)
    return list(dict.fromkeys(parts))


def _starts(name):
    return accumulate(name.split("."), "{}.{}".format)


if __name__ == "__main__":
    main()
