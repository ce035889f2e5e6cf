"""Compare rotations on the sphere with linear ones, by steps of Euler's method, on large turns.

Example: python3 test/benchmark/rotations.py --seeds 3

A made-up task with the turns that table-top demonstrations lack: a gripper has to reach an object's
orientation, up to 150 degrees away, along the shortest way, and its place. Half of the objects look
the same after half a turn about their own axis, so two ways are right and either is shown; an error
is that to the nearer one. A small network reads the object's pose and predicts the chunk by the
suite's own flow matching; every variant has the same network, data, noise and steps. Mean and
spread (standard deviation over seeds) of the error in degrees on tasks that were not trained on.
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from spear_policy.model import s3
from spear_policy.model.config import FlowConfig
from spear_policy.model.flow_matching import FlowMatching

CHUNK, BATCH, HIDDEN = 5, 256, 256
MOST_DEG = 150.0
HELD_OUT = 1000
EULER_STEPS = (1, 2, 5, 10)
VARIANTS = {
    "sphere, the paper's losses": FlowConfig(),
    "sphere, geometric loss over its step": FlowConfig(rot_geo_scale="inv_delta"),
    "sphere, squared errors": FlowConfig(
        rotation_velocity_loss="mse", rotation_geometric_loss="none"
    ),
    "4-vectors, the paper's losses": FlowConfig(rotation="r4"),
    "4-vectors, geometric loss over its step": FlowConfig(rotation="r4", rot_geo_scale="inv_delta"),
    "4-vectors, squared errors": FlowConfig(
        rotation="r4", rotation_velocity_loss="mse", rotation_geometric_loss="none"
    ),
    "matrices, squared errors": FlowConfig(
        rotation="matrix", rotation_velocity_loss="mse", rotation_geometric_loss="none"
    ),
}


@dataclass(frozen=True)
class Tasks:
    """B tasks.

    Attributes:
        seen: (B, 13) the object's rotation matrix, its place, whether it is symmetric.
        translations: (B, CHUNK, 3).
        rotations_wxyz: (2, B, CHUNK, 4) the two right answers, the same where there is one.
        shown_wxyz: (B, CHUNK, 4) the one that is demonstrated.
    """

    seen: Tensor
    translations: Tensor
    rotations_wxyz: Tensor
    shown_wxyz: Tensor


def draw_tasks(count: int, rng: np.random.Generator) -> Tasks:
    """Draw tasks."""
    axes = rng.normal(size=(count, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    turn = Rotation.from_rotvec(axes * np.deg2rad(rng.uniform(0, MOST_DEG, (count, 1))))
    place = rng.uniform(-1, 1, (count, 3))
    symmetric = rng.random(count) < 0.5
    turned = turn * Rotation.from_euler("z", np.where(symmetric, np.pi, 0.0)[:, None])
    share = np.arange(1, CHUNK + 1) / CHUNK
    answers = []
    for goal in (turn, turned):
        way = goal.as_rotvec()[:, None] * share[None, :, None]
        xyzw = Rotation.from_rotvec(way.reshape(-1, 3)).as_quat()
        answers.append(np.roll(xyzw, 1, axis=1).reshape(count, CHUNK, 4))
    rotations = s3.half_space(torch.tensor(np.stack(answers), dtype=torch.float32))
    first = torch.from_numpy(rng.random(count) < 0.5)
    seen = np.concatenate([turn.as_matrix().reshape(count, 9), place, symmetric[:, None]], axis=1)
    return Tasks(
        torch.tensor(seen, dtype=torch.float32),
        torch.tensor(place[:, None] * share[None, :, None], dtype=torch.float32),
        rotations,
        torch.where(first[:, None, None], rotations[0], rotations[1]),
    )


class Velocity(nn.Module):
    """The velocity of a chunk, from what is seen, the noisy chunk and the time."""

    def __init__(self, action_dim: int):
        """Make it, random."""
        super().__init__()
        self.register_buffer("waves", 2.0 ** torch.arange(8) * np.pi / 2)
        width = 13 + CHUNK * action_dim + 16
        layers = [nn.Linear(width, HIDDEN), nn.SiLU()]
        for _ in range(2):
            layers += [nn.Linear(HIDDEN, HIDDEN), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(HIDDEN, CHUNK * action_dim))

    def forward(self, seen: Tensor, noisy: Tensor, tau: Tensor) -> Tensor:
        """Predict (B, CHUNK, D)."""
        phase = tau[:, None] * self.waves
        time_features = torch.cat([phase.sin(), phase.cos()], dim=1)
        found = self.layers(torch.cat([seen, noisy.flatten(1), time_features], dim=1))
        return found.view_as(noisy)


def trained(config: FlowConfig, seed: int, steps: int) -> Velocity:
    """Train a network on tasks of its seed."""
    torch.manual_seed(seed)
    flow, rng = FlowMatching(config), np.random.default_rng([seed, 0])
    model = Velocity(config.action_dim)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        tasks = draw_tasks(BATCH, rng)
        gripper = torch.ones(BATCH, CHUNK, 1)
        targets = flow.encode(tasks.translations, tasks.shown_wxyz, gripper)
        sample = flow.draw(targets, generator)
        loss = flow.loss(model(tasks.seen, sample.noisy, sample.tau), sample).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model


@torch.no_grad()
def errors_deg(model: Velocity, config: FlowConfig, seed: int) -> dict[int, float]:
    """Mean error of the last step's rotation, by the number of Euler steps."""
    flow, tasks = FlowMatching(config), draw_tasks(HELD_OUT, np.random.default_rng([seed, 1]))
    found = {}
    for steps in EULER_STEPS:
        noise = flow.noise(HELD_OUT, CHUNK, torch.Generator().manual_seed(seed))

        def velocity(actions, k, tau):
            return model(tasks.seen, actions, torch.full((HELD_OUT,), tau))

        _, rotation, _ = flow.decode(flow.integrate(velocity, noise, steps))
        off = s3.rotation_angle(rotation[:, -1], tasks.rotations_wxyz[:, :, -1])
        found[steps] = float(torch.rad2deg(off.min(dim=0).values.mean()))
    return found


def main() -> None:
    """Train every variant with every seed and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3000, help="of training (default: 3000)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console, begun_s = Console(), time.monotonic()
    table = Table("rotation", *(f"{n} Euler step{'s'[: n > 1]}" for n in EULER_STEPS))
    for name, config in VARIANTS.items():
        rows = []
        for seed in range(options.seeds):
            rows.append(errors_deg(trained(config, seed, options.steps), config, seed))
            console.print(f"{name}, seed {seed}: {rows[-1]}", style="dim", highlight=False)
        means = {n: [row[n] for row in rows] for n in EULER_STEPS}
        table.add_row(name, *(f"{np.mean(v):.1f} ± {np.std(v):.1f}°" for v in means.values()))
    console.print(table)
    tasks = draw_tasks(HELD_OUT, np.random.default_rng([0, 1]))
    still = s3.rotation_angle(tasks.rotations_wxyz[0, :, -1], torch.tensor([1.0, 0.0, 0.0, 0.0]))
    console.print(f"not turning: {float(torch.rad2deg(still.mean())):.1f}°")
    console.print(f"{time.monotonic() - begun_s:.0f} s")


if __name__ == "__main__":
    main()
