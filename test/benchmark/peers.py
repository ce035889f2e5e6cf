"""Compare one inference with pi-zero-pytorch and with a hand-written lower bound, on a CPU.

Example (in an environment of its own that also has pi-zero-pytorch 0.5.17):
    python3 test/benchmark/peers.py --repeats 20 --json out/peers.json

facts/model.md 8's reduced shapes: two 224 px images, no depth encoder, 20 words, 5 actions, 10
steps, one thread, fp32. The contestants take turns in one process and are timed by its CPU time,
because wall time on a shared machine says more about the neighbours.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from lower_bound import LowerBound
from rich.console import Console
from rich.progress import track
from rich.table import Table

from spear_policy.model.config import (
    CameraConfig,
    ExpertConfig,
    LanguageConfig,
    ModelConfig,
    SiglipConfig,
    VocabularyConfig,
)
from spear_policy.model.sampling import Sampler
from spear_policy.model.spear import ModelInputs, build

WORDS, STEPS = 20, 10
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
    difference = (sampler(inputs, noise=noise[None])[0] - bound(images, ids, state, noise)).abs()
    if difference.max() > 1e-4:
        raise SystemExit(f"the lower bound computes something else: {float(difference.max())}")
    return {
        "spear": lambda: sampler(inputs, noise=noise[None]),
        "lower bound": lambda: bound(images, ids, state, noise),
    }


def pi_zero(images, ids, state):
    """pi-zero-pytorch at the same widths: Euler, keys and values cached.

    Its gated MLP takes two thirds of the given factor; 6 makes it as wide as pi0's, 4 is what its
    own default gives.
    """
    from pi_zero_pytorch import PiZero
    from pi_zero_pytorch.pi_zero import SigLIP

    found = {}
    for factor in (6.0, 4.0):
        torch.manual_seed(0)
        model = PiZero(
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
        pictures = (2 * images - 1).transpose(0, 1)[None]  # (1, 3, frames, H, W)

        def run(model=model, pictures=pictures):
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
    try:
        contestants |= pi_zero(images, ids, state)
    except ImportError as error:
        print(f"without pi-zero-pytorch: {error}")
    seconds = {name: [] for name in contestants}
    for _ in track(range(arguments.repeats + 2), "measuring"):
        for name, run in contestants.items():
            begin = time.process_time()
            run()
            seconds[name].append(time.process_time() - begin)
    medians = {name: statistics.median(each[2:]) for name, each in seconds.items()}
    table = Table("one chunk, 1 thread, fp32", title="process-CPU time, median")
    for heading in ("ms", "of SPEAR"):
        table.add_column(heading, justify="right")
    for name, median in medians.items():
        table.add_row(name, f"{1e3 * median:.0f}", f"{median / medians['spear']:.2f}")
    Console().print(table)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"repeats": arguments.repeats, "s": medians}))


if __name__ == "__main__":
    main()
