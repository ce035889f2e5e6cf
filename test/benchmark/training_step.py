"""Compare a training step with public models of its kind and a hand-written bound, on a CPU.

Example: python3 test/benchmark/training_step.py --repeats 10

A step is a loss and its gradients; the optimiser, which costs everybody the same, is left out. The
reduced shapes of peers.py: two 224 px images, no depth encoder, up to 20 words, 5 actions, one
draw of noise, fp32, one thread. Actions are stage 2, answers stage 1. The bound has the same loss
and gradients, and so has transformers' pi0 with the same values; that is looked at before anybody
is timed. pi-zero-pytorch computes something else.
"""

import argparse
from dataclasses import replace

import by_turns
import torch
from peers import REDUCED, STRAIGHT, WORDS, pi_zero_model, public_pi0, with_values_of
from rich.console import Console
from torch.profiler import ProfilerActivity, profile
from training_bound import TrainingBound

from spear_policy.model.flow_matching import FlowMatching
from spear_policy.model.gemma import answer_loss
from spear_policy.model.spear import ModelInputs, build

PROMPT = 8  # words before the answer
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::mkldnn_conv", "aten::convolution_b")
ATTENTION = "aten::_scaled_dot_product"


class Batch:
    """What all contestants are given."""

    def __init__(self, size):
        """Draw it."""
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(2, size, 3, 224, 224, generator=generator)
        self.ids = torch.randint(3, 1000, (size, WORDS), generator=generator)
        self.valid = torch.arange(WORDS) < WORDS - torch.arange(size)[:, None] % 4
        self.prompt = (torch.arange(WORDS) < PROMPT).expand(size, -1)
        self.state = torch.tensor([0.1, 0.2, 0.3, 1, 0, 0, 0, 0.5]).expand(size, -1)
        flow = FlowMatching(REDUCED.flow)
        self.targets = flow.noise(size, REDUCED.chunk_length, generator)

    def inputs(self, **state):
        """As our model takes them."""
        return ModelInputs(tuple(self.images), self.ids, self.valid, **state)

    def draw(self, flow):
        """The same noise and times every time."""
        return flow.draw(self.targets, torch.Generator().manual_seed(1))


def step(model, loss):
    """A training step: the loss and its gradients."""

    def run():
        model.zero_grad()
        value = loss()
        value.backward()
        return value.detach()

    return run


def our_actions(batch, config, model=None):
    """Stage 2 of ours: draws of noise and time, the losses and all their figures."""
    model = model or build(config)
    flow, inputs = FlowMatching(config.flow), batch.inputs(state=batch.state)

    def loss():
        sample = batch.draw(flow)
        return flow.loss(model(inputs, sample.noisy, sample.tau), sample).total

    return model, step(model, loss)


def our_answers(batch, config):
    """Stage 1 of ours."""
    model, inputs = build(replace(config, expert=None)), batch.inputs()
    answer = batch.valid & ~batch.prompt

    def loss():
        logits = model(inputs, bidirectional=batch.prompt)
        return answer_loss(logits, batch.ids, answer, config.vocabulary)

    return model, step(model, loss)


def check_same(name, model, ours, theirs):
    """Compare loss and gradients of two steps over the same parameters.

    Raises:
        SystemExit: they differ by more than rounding.
    """
    found = []
    for run in (ours, theirs):
        value = run()
        found.append([value, *(p.grad for p in model.parameters() if p.grad is not None)])
    worst = max(
        float((a - b).abs().max() / a.abs().max().clamp_min(1e-12))
        for a, b in zip(*found, strict=True)
    )
    print(f"{name}: loss and gradients are ours within {worst:.1e} of each one's largest number")
    if not worst < 1e-4:
        raise SystemExit(f"{name} computes something else than SPEAR")


def transformers_pi0(batch):
    """PI0ForConditionalGeneration of transformers, whose time runs from data to noise."""
    import transformers

    model = public_pi0()
    size, sample = len(batch.ids), batch.draw(FlowMatching(STRAIGHT))
    pictures = torch.full((size, sum(REDUCED.image_tokens)), REDUCED.vocabulary.image_id)
    given = {
        "state": batch.state,
        "input_ids": torch.cat([pictures, batch.ids], 1),
        "pixel_values": 2 * batch.images.transpose(0, 1) - 1,
        "pixel_attention_mask": torch.ones(size, 2, dtype=torch.bool),
        "attention_mask": torch.cat([torch.ones_like(pictures), batch.valid.long()], 1),
        "noise": sample.noise,
        "actions": batch.targets,
        "timestep": 1 - sample.tau,
    }
    run = step(model, lambda: model(**given).loss)
    mine, ours = our_actions(batch, replace(REDUCED, flow=STRAIGHT), with_values_of(model))
    loss, theirs = float(ours()), float(run()) * mine.config.flow.action_dim
    name = f"transformers {transformers.__version__}"
    print(f"{name}: its loss is {theirs:.6f}, ours {loss:.6f}")
    if not abs(loss - theirs) < 1e-4 * loss:
        raise SystemExit(f"{name} computes something else than SPEAR")
    return {name: run}


def pi_zero(batch):
    """pi-zero-pytorch; its encoder is called here, for by itself it would get no gradients."""
    found = {}
    for factor in (6.0, 4.0):
        model = pi_zero_model(factor).train()
        pictures = (2 * batch.images - 1).transpose(0, 1).flatten(0, 1)

        def loss(model=model, pictures=pictures):
            seen = model.vit(pictures).unflatten(0, (len(batch.ids), -1)).flatten(1, 2)
            given = batch.ids, batch.state, batch.targets
            return model(None, *given, visual_tokens=seen, return_language_loss=False)[0]

        found[f"pi-zero-pytorch, MLP factor {factor:g}"] = step(model, loss)
    return found


def shares(run):
    """Shares of a step's time in matrix products and convolutions, and in attention."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        run()
    parts = recorded.key_averages()
    whole = sum(part.self_cpu_time_total for part in parts)
    products, attention = (
        sum(part.self_cpu_time_total for part in parts if part.key.startswith(names)) / whole
        for names in (PRODUCTS, ATTENTION)
    )
    return products, attention


def main():
    """Run the comparison and print both stages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--batch", type=int, default=2, help="observations in a step")
    options = parser.parse_args()
    torch.set_num_threads(1)
    batch, console = Batch(options.batch), Console()
    straight = replace(REDUCED, flow=STRAIGHT)

    model, ours = our_actions(batch, straight)
    sample = batch.draw(FlowMatching(STRAIGHT))
    bound = step(model, TrainingBound(model, batch.inputs(state=batch.state), sample).actions)
    check_same("lower bound of actions", model, ours, bound)
    actions = {
        "lower bound": bound,
        "SPEAR": ours,
        "SPEAR, rotations on S^3": our_actions(batch, REDUCED)[1],
    }
    for peer in (transformers_pi0, pi_zero):
        try:
            actions |= peer(batch)
        except ImportError as error:
            print(f"without {peer.__name__}: {error}")

    model, ours = our_answers(batch, straight)
    bound = step(model, TrainingBound(model, batch.inputs(), prompt=batch.prompt).answers)
    check_same("lower bound of answers", model, ours, bound)
    answers = {"lower bound": bound, "SPEAR": ours}
    for title, contestants in (("actions", actions), ("answers", answers)):
        seconds = by_turns.measure(contestants, options.repeats)
        heading = f"{title}, batch {options.batch}, 1 thread, fp32"
        console.print(by_turns.table(heading, seconds, "lower bound"))
        products, attention = shares(contestants["SPEAR"])
        console.print(f"of SPEAR's: matrix products {products:.0%}, attention {attention:.0%}")


if __name__ == "__main__":
    main()
