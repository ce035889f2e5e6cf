"""What a training loop wraps around the model changes no gradient.

Activation checkpointing, torch.compile, DDP and FSDP2; the loss of stage 1; EMA weights.
"""

import multiprocessing
from dataclasses import replace
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
from toy_models import MICRO, micro, observation

from spear_policy.model.checkpoint import plain_name
from spear_policy.model.flow_matching import FlowMatching
from spear_policy.model.gemma import answer_loss
from spear_policy.model.sampling import Sampler
from spear_policy.model.spear import ModelInputs

PROMPT = torch.tensor([[True] * 3 + [False] * 3])  # then three tokens of answer


def noisy_actions(batch=2):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, 5, 8, generator=generator), torch.rand(batch, generator=generator)


def loss_of(model, stage, rows=slice(None)):
    """Mean loss of rows of a batch of two; both stages call the model itself."""
    whole, (actions, tau) = observation(), noisy_actions()
    images = tuple(image[rows] for image in whole.images)
    inputs = ModelInputs(images, whole.text_ids[rows], state=whole.state[rows])
    if stage == 2:
        return model(inputs, actions[rows], tau[rows]).pow(2).mean()
    prompt = PROMPT.expand(len(inputs.text_ids), -1)
    logits = model(inputs, bidirectional=prompt)
    return answer_loss(logits, inputs.text_ids, ~prompt, MICRO.vocabulary)


def of_stage(stage):
    return micro() if stage == 2 else micro(expert=None)


def gradients(model):
    found = {plain_name(name): p.grad for name, p in model.named_parameters() if p.requires_grad}
    return {n: g.full_tensor() if hasattr(g, "full_tensor") else g for n, g in found.items()}


def expected_gradients(stage):
    model = of_stage(stage)
    loss_of(model, stage).backward()
    return gradients(model)


def check_same(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("stage", [1, 2])
def test_checkpointed_layers_have_the_same_gradients(stage, reentrant):
    model = of_stage(stage)
    stacks = [model.language, *([model.expert.stack] if model.expert else [])]
    for layer in (layer for stack in stacks for layer in stack.layers):

        def again(*arguments, forward=layer.forward):
            return checkpoint(forward, *arguments, use_reentrant=reentrant)

        layer.forward = again
    loss_of(model, stage).backward()
    check_same(gradients(model), expected_gradients(stage))


LIMIT = timedelta(seconds=60)


def one_rank(rank, path):
    """Half of the batch through DDP, then through FSDP2 over checkpointed layers."""
    store = dist.FileStore(str(path), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=LIMIT)
    try:
        rows, found = slice(rank, rank + 1), []
        for stage in (1, 2):
            plain = DistributedDataParallel(of_stage(stage))
            for _ in range(2):  # the second step is where a parameter without a gradient raises
                plain.zero_grad()
                loss_of(plain, stage, rows).backward()
            found.append((stage, gradients(plain)))
            sharded = of_stage(stage)
            stacks = [sharded.siglip.blocks, sharded.depth.blocks, sharded.language.layers]
            for layers in [*stacks, *([sharded.expert.stack.layers] if stage == 2 else [])]:
                for index, layer in enumerate(layers):
                    layers[index] = fully_shard(checkpoint_wrapper(layer))
            fully_shard(sharded)
            loss_of(sharded, stage, rows).backward()
            found.append((stage, gradients(sharded)))
        return found
    finally:
        dist.destroy_process_group()


def test_two_ranks_have_the_gradients_of_one_by_ddp_and_by_fsdp2(tmp_path):
    context = multiprocessing.get_context("spawn")
    other = context.Process(target=one_rank, args=(1, tmp_path / "store"), daemon=True)
    other.start()
    found = one_rank(0, tmp_path / "store")
    other.join(60)
    assert other.exitcode == 0
    for stage, theirs in found:
        check_same(theirs, expected_gradients(stage))


def test_each_loss_and_its_model_compile_to_one_graph():
    flow, inputs, prompt = FlowMatching(MICRO.flow), observation(), PROMPT.expand(2, -1)
    targets = flow.noise(2, 5, torch.Generator().manual_seed(1))
    sample = flow.draw(targets, torch.Generator().manual_seed(2))

    def of_actions(model):
        return flow.loss(model(inputs, sample.noisy, sample.tau), sample).total

    def of_answers(model):
        logits = model(inputs, bidirectional=prompt)
        return answer_loss(logits, inputs.text_ids, ~prompt, MICRO.vocabulary)

    small = {  # every layer is traced one by one
        "depth": replace(MICRO.depth, layers=1, output_layers=(0,)),
        "siglip": replace(MICRO.siglip, layers=1),
        "language": replace(MICRO.language, layers=2),
    }
    for loss, model in ((of_answers, micro(expert=None, **small)), (of_actions, micro(**small))):
        compiled = torch.compile(loss, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(model), loss(model))


@torch.no_grad()
def test_several_draws_share_one_reading_of_the_images():
    model, inputs, (actions, tau) = micro(), observation(), noisy_actions(batch=6)
    together = model(inputs, actions, tau)
    for begin in (0, 2, 4):
        part = slice(begin, begin + 2)
        torch.testing.assert_close(together[part], model(inputs, actions[part], tau[part]))


@torch.no_grad()
def test_ema_weights_exchanged_in_place_leave_nothing_of_the_old_ones():
    model, ema, inputs = micro(seed=1), micro(seed=2), observation()
    noise = Sampler(model).flow.noise(2, 5, torch.Generator().manual_seed(0))
    Sampler(model)(inputs, noise=noise)
    for mine, other in zip(model.parameters(), ema.parameters(), strict=True):
        mine.data.copy_(other.data)
    ours, theirs = Sampler(model)(inputs, noise=noise), Sampler(ema)(inputs, noise=noise)
    assert torch.equal(ours, theirs)


# The loss of stage 1 -----------------------------------------------------------------------------


def test_each_answer_token_is_predicted_from_the_one_before_and_3d_tokens_weigh_more():
    words = replace(MICRO.vocabulary, size=10, loc_begin=8, loc_tokens=2, coordinate_tokens=4)
    ids = torch.tensor([[2, 5, 12, 14, words.eos_id, 0], [2, 6, 7, 9, words.eos_id, 0]])
    answer = torch.tensor([[0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 0]], dtype=torch.bool)
    logits = torch.randn(2, 6, 14, generator=torch.Generator().manual_seed(0))
    scores = F.log_softmax(logits, dim=-1)
    # position and column; <image> is 10 and has no column, so a 3D token's is one less than its id
    coordinates = scores[0, 1, 11] + scores[0, 2, 13]
    others = scores[0, 3, 1] + scores[1, 2, 9] + scores[1, 3, 1]

    def loss(**options):
        return answer_loss(logits, ids, answer, words, **options)

    torch.testing.assert_close(loss(coordinate_weight=2.0), -(2 * coordinates + others) / 5)
    torch.testing.assert_close(loss(count=10), loss() / 2)  # half of a step of ten tokens
    assert answer_loss(logits, ids, torch.zeros_like(answer), words) == 0
