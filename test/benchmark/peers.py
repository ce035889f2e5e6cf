"""Compare one inference with the public models of its kind and a hand-written bound, on a CPU.

Example: python3 test/benchmark/peers.py --repeats 20 --json out/peers.json

The reduced shapes of docs/performance.md: two 224 px images, no depth encoder, 20 words, 5
actions, 10 steps, one thread, fp32. The contestants take turns in one process and are timed by its
CPU time, because wall time on a shared machine says more about the neighbours. Who cannot be
imported is named and left out; docs/performance.md says how to make an environment for each.

transformers', openpi's and lerobot's models compute pi0. Our loaders read their values, and ours
must make the same chunk before anybody is timed. pi-zero-pytorch computes something else.
"""

import argparse
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType, SimpleNamespace

import by_turns
import torch
from lower_bound import LowerBound
from rich.console import Console
from safetensors.torch import save_file

from spear_policy.model.checkpoint import WEIGHTS
from spear_policy.model.config import (
    CameraConfig,
    ExpertConfig,
    FlowConfig,
    LanguageConfig,
    ModelConfig,
    SiglipConfig,
    VocabularyConfig,
)
from spear_policy.model.public_weights import load_paligemma, load_pi0_expert
from spear_policy.model.sampling import Sampler
from spear_policy.model.spear import ModelInputs, build

WORDS, STEPS = 20, 10
STRAIGHT = FlowConfig(  # as pi0's actions flow
    rotation="r4", rotation_velocity_loss="mse", rotation_geometric_loss="none"
)
REDUCED = ModelConfig(
    name="reduced",
    patch_size=14,
    cameras=(CameraConfig("external", 224, 224), CameraConfig("wrist", 224, 224)),
    siglip=SiglipConfig(width=384, layers=6, heads=6, mlp_width=1536),
    language=LanguageConfig(width=512, layers=6, mlp_width=2048, heads=8, head_dim=64),
    vocabulary=VocabularyConfig(size=2048, loc_begin=1024, loc_tokens=1024, coordinate_tokens=64),
    expert=ExpertConfig(width=256, mlp_width=1024),
)


def ours(images, ids, state, noise):
    """SPEAR's sampler and the lower bound over the same weights."""
    model = build(REDUCED)
    sampler = Sampler(model, STEPS)
    inputs = ModelInputs(tuple(images[:, None]), ids[None], state=state[None])
    bound = LowerBound(model, STEPS)
    chunk = sampler(inputs, noise=noise[None])[0]
    _check_same("lower bound", chunk, bound(images, ids, state, noise))
    return {
        "spear": lambda: sampler(inputs, noise=noise[None]),
        "lower bound": lambda: bound(images, ids, state, noise),
    }


def _check_same(name, chunk, theirs):
    difference = float((chunk - theirs).abs().max() / theirs.abs().max())
    print(f"{name}: its chunk is ours within {difference:.1e} of the largest number")
    if not difference < 1e-4:
        raise SystemExit(f"{name} computes something else than SPEAR")


def _pi0(name, model, run, images, ids, state, noise):
    """A contestant that computes pi0, once our model has made the same chunk with its values."""
    mine = with_values_of(model)
    inputs = ModelInputs(tuple(images[:, None]), ids[None], state=state[None])
    _check_same(name, Sampler(mine, STEPS)(inputs, noise=noise[None]), run())
    return {name: run}


def with_values_of(model):
    """Our model with the values of one that computes pi0, by our loaders."""
    with TemporaryDirectory() as folder:
        if hasattr(model, "save_pretrained"):
            model.save_pretrained(folder)
        else:
            tensors = {key: values.clone() for key, values in model.state_dict().items()}
            save_file(tensors, Path(folder) / WEIGHTS)
        mine = build(replace(REDUCED, flow=STRAIGHT))
        load_paligemma(mine, folder)
        load_pi0_expert(mine, folder)
    return mine


def public_pi0():
    """The model of transformers, for `transformers_pi0`."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "spear_policy/test"))
    import checkpoint_checks

    model = checkpoint_checks.public_pi0(REDUCED)
    for parameter in model.parameters():
        parameter.data.mul_(0.2)  # as drawn for the tests, so wide a model magnifies rounding
    return model


def transformers_pi0(images, ids, state, noise):
    """PI0ForConditionalGeneration of transformers."""
    import transformers

    model = public_pi0()
    pictures = torch.full((2 * 256,), REDUCED.vocabulary.image_id)
    given = {
        "state": state[None],
        "input_ids": torch.cat([pictures, ids])[None],
        "pixel_values": 2 * images[None] - 1,
        "pixel_attention_mask": torch.ones(1, 2, dtype=torch.bool),
        "attention_mask": torch.ones(1, 2 * 256 + len(ids), dtype=torch.long),
        "noise": noise[None],
    }

    def run():
        return model.sample_actions(num_steps=STEPS, **given)

    name = f"transformers {transformers.__version__}"
    return _pi0(name, model, run, images, ids, state, noise)


def lerobot_pi0(images, ids, state, noise):
    """The model behind lerobot's PI0Policy."""
    from importlib.metadata import version

    from lerobot.policies.pi0 import modeling_pi0
    from lerobot.policies.pi0.configuration_pi0 import PI0Config

    _shrink(modeling_pi0, "PaliGemmaForConditionalGenerationWithPiGemma", modeling_pi0)
    config = PI0Config(
        dtype="float32", chunk_size=5, n_action_steps=5, max_action_dim=8, max_state_dim=8
    )
    model = modeling_pi0.PI0Pytorch(config).eval()
    pictures = [2 * image[None] - 1 for image in images]
    valid = torch.ones(1, dtype=torch.bool)
    given = pictures, [valid] * 2, ids[None], valid.expand(1, len(ids)), state[None]

    def run():
        return model.sample_actions(*given, noise=noise[None], num_steps=STEPS)

    name = f"lerobot {version('lerobot')}"
    return _pi0(name, model, run, images, ids, state, noise)


def openpi_pi0(images, ids, state, noise):
    """openpi's torch port; what else it imports (jax, its resizing) is put out of its way."""
    import openpi

    openpi.models, gemma, resizing = map(ModuleType, ("models", "gemma", "preprocessing"))
    openpi.models.gemma = gemma
    resizing.preprocess_observation_pytorch = lambda observation, train: observation
    sys.modules |= {
        "openpi.models": openpi.models,
        "openpi.models.gemma": gemma,
        "openpi.models_pytorch.preprocessing_pytorch": resizing,
    }
    from openpi.models_pytorch import gemma_pytorch, pi0_pytorch

    _shrink(gemma_pytorch, "PaliGemmaForConditionalGeneration", gemma)
    model = pi0_pytorch.PI0Pytorch(
        SimpleNamespace(
            pi05=False,
            paligemma_variant="gemma_2b",
            action_expert_variant="gemma_300m",
            dtype="float32",
            action_dim=8,
            action_horizon=5,
            pytorch_compile_mode=None,
        )
    ).eval()
    valid = torch.ones(1, dtype=torch.bool)
    observation = SimpleNamespace(
        images={i: 2 * image[None] - 1 for i, image in enumerate(images)},
        image_masks=dict.fromkeys(range(len(images)), valid),
        tokenized_prompt=ids[None],
        tokenized_prompt_mask=valid.expand(1, len(ids)),
        state=state[None],
    )

    def run():
        return model.sample_actions("cpu", observation, noise=noise[None], num_steps=STEPS)

    return _pi0("openpi's torch port", model, run, images, ids, state, noise)


def _shrink(model_module, class_name, gemma_module):
    """Give a port of openpi REDUCED's sizes: it takes the Gemmas by name, the rest is fixed."""
    language, vision, expert = REDUCED.language, REDUCED.siglip, REDUCED.expert
    whole = getattr(model_module, class_name)

    def sizes(variant):
        part = language if variant == "gemma_2b" else expert
        return SimpleNamespace(
            width=part.width,
            depth=language.layers,
            mlp_dim=part.mlp_width,
            num_heads=language.heads,
            num_kv_heads=1,
            head_dim=language.head_dim,
        )

    def paligemma(config, **options):
        config.text_config.vocab_size = REDUCED.vocabulary.size
        config.image_token_id = config.image_token_index = REDUCED.vocabulary.size
        config.projection_dim = config.vision_config.projection_dim = language.width
        config.vision_config.hidden_size = vision.width
        config.vision_config.num_hidden_layers = vision.layers
        config.vision_config.num_attention_heads = vision.heads
        config.vision_config.intermediate_size = vision.mlp_width
        return whole(config, **options)

    setattr(model_module, class_name, paligemma)
    gemma_module.get_config = gemma_module.get_gemma_config = sizes


def pi_zero_model(factor):
    """pi-zero-pytorch's model at our widths.

    Its gated MLP takes two thirds of the given factor; 6 makes it as wide as pi0's, 4 is what its
    own default gives.
    """
    from pi_zero_pytorch import PiZero
    from pi_zero_pytorch.pi_zero import SigLIP

    torch.manual_seed(0)
    return PiZero(
        dim=512,
        num_tokens=2048,
        dim_action_input=8,
        dim_joint_state=8,
        dim_action=256,
        depth=6,
        dim_head=64,
        heads=8,
        kv_heads=1,
        ff_expand_factor=factor,
        vit=SigLIP(image_size=224, dim=384, depth=6, heads=6, mlp_dim=1536),
        vit_dim=384,
        num_action_register_tokens=1,
        odeint_kwargs={"method": "euler"},
    ).eval()


def pi_zero(images, ids, state, noise):
    """pi-zero-pytorch: Euler, keys and values cached."""
    pictures = (2 * images - 1).transpose(0, 1)[None]  # (1, 3, frames, H, W)
    found = {}
    for factor in (6.0, 4.0):
        model = pi_zero_model(factor)

        def run(model=model):
            with torch.no_grad():
                model.sample_actions(
                    pictures,
                    ids[None],
                    state[None],
                    trajectory_length=5,
                    steps=STEPS + 1,
                    show_pbar=False,
                )

        found[f"pi-zero-pytorch, MLP factor {factor:g}"] = run
    return found


def main():
    """Run the comparison and print medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 224, 224, generator=generator)
    ids = torch.randint(3, 1000, (WORDS,), generator=generator)
    state = torch.tensor([0.1, 0.2, 0.3, 1, 0, 0, 0, 1])
    noise = torch.randn(5, 8, generator=generator)
    noise[:, 3:7] = torch.nn.functional.normalize(noise[:, 3:7].abs(), dim=-1)
    contestants = ours(images, ids, state, noise)
    for peer in (transformers_pi0, lerobot_pi0, openpi_pi0, pi_zero):
        try:
            contestants |= peer(images, ids, state, noise)
        except ImportError as error:
            print(f"without {peer.__name__}: {error}")
    seconds = by_turns.measure(contestants, arguments.repeats)
    Console().print(by_turns.table("one chunk, 1 thread, fp32", seconds, "spear"))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        medians = {name: statistics.median(each) for name, each in seconds.items()}
        arguments.json.write_text(json.dumps({"repeats": arguments.repeats, "s": medians}))


if __name__ == "__main__":
    main()
