"""From an observation to a chunk: the prefix and the state are read once, then ten small steps.

Nothing in the prefix sees the state, and neither sees the actions, so both
stay in the KV cache while the actions flow from noise to data. Answers to questions come last:
greedily, token by token over the same kind of cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_policy.model.flow_matching import FlowMatching
from spear_policy.model.gemma import StaticKVCache, ids_from_columns, positions_of
from spear_policy.model.spear import ActionExpert, ModelInputs, SpearModel, time_embedding


class FoldedActionEmbedding:
    """The expert's embedding of (actions, tau_k) with everything known beforehand worked out.

    W_1 [W_in a + b; phi(tau_k)] + b_1 = (W_1a W_in) a + table_k: one small product and a row of a
    table for each of the sampler's times. Exact up to rounding.
    """

    def __init__(self, expert: ActionExpert, taus: Tensor):
        """Fold for the times `taus` (K,); the weights must not change afterwards."""
        width = expert.config.width
        first = expert.time_in.weight.float()
        of_action, of_time = first[:, :width], first[:, width:]
        times = time_embedding(taus.to(first.device), width, expert.config)
        bias = of_action @ expert.action_in.bias.float() + expert.time_in.bias.float()
        dtype = expert.time_out.weight.dtype
        self._matrix = (of_action @ expert.action_in.weight.float()).to(dtype)
        self._table = (times @ of_time.T + bias).to(dtype)
        self._out = expert.time_out

    def __call__(self, actions: Tensor, k: int) -> Tensor:
        """Embed (B, H, D) at the k-th time to (B, H, width)."""
        return self._out(
            F.silu(F.linear(actions.to(self._matrix.dtype), self._matrix) + self._table[k])
        )


@dataclass(frozen=True)
class PrefixCache:
    """What the denoising steps need of an observation: images, text and state, read once.

    Attributes:
        kv_cache: holds images, text and state.
        positions: (B, H) of the action tokens.
        seen: mask of keys, see `SpearModel.visible`.
    """

    kv_cache: StaticKVCache
    positions: Tensor
    seen: Tensor | None


class Sampler:
    """Draws chunks from a model that is not being trained.

    What follows from the weights is worked out once: make a new one after they changed.

    Example:
        sampler = Sampler(model)
        actions = sampler(inputs, generator=torch.Generator().manual_seed(0))
        translation, rotation_wxyz, gripper = sampler.flow.decode(actions)
    """

    def __init__(self, model: SpearModel, steps: int | None = None):
        """`steps` of Euler integration; the configuration's when not given.

        Raises:
            ValueError: the model has no action expert, or there are no steps.
        """
        if model.expert is None:
            raise ValueError(
                f"{model.config.name} has no action expert (expert is null), so it answers "
                "questions and makes no chunks: give the folder of a stage 2 checkpoint"
            )
        self.model, self.flow = model, FlowMatching(model.config.flow)
        self.steps = model.config.flow.steps if steps is None else steps
        if self.steps < 1:
            raise ValueError(f"{self.steps} sampling steps: at least 1 is needed")
        with torch.no_grad():
            taus = torch.arange(self.steps) / self.steps
            self._embed = FoldedActionEmbedding(model.expert, taus)
            self._positions = model.positions()

    def __call__(
        self,
        inputs: ModelInputs,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Sample one chunk for each observation.

        Args:
            inputs: with `state`.
            noise: (B, H, D) to start from; drawn when not given.
            generator: the same seed and inputs give the same chunk.

        Returns:
            (B, H, D) fp32, laid out as `flow_matching` says.

        Raises:
            ValueError: an input has a wrong shape or values, such as pictures up to 255 as float;
                it is named.
        """
        inputs.check_shapes(self.model.config)
        inputs.check_values(self.model.config)
        batch, length = len(inputs.text_ids), self.model.config.chunk_length
        if noise is None:
            noise = self.flow.noise(batch, length, generator, inputs.text_ids.device)
        return self.denoise(self.read(inputs), noise)

    @torch.no_grad()
    def read(
        self,
        inputs: ModelInputs,
        cache: StaticKVCache | None = None,
        image_tokens: Tensor | None = None,
    ) -> PrefixCache:
        """Read an observation; nothing is checked.

        Args:
            inputs: with `state`.
            cache: empty, from `new_cache`; made when not given.
            image_tokens: of the images, where they are known already.
        """
        model, expert = self.model, self.model.expert
        if image_tokens is None:
            image_tokens = self.image_tokens(inputs.images)
        cache = self.new_cache(*inputs.text_ids.shape) if cache is None else cache
        _, valid = model.prefill(inputs, cache, image_tokens)
        cache.keep(valid.shape[1])
        count = 1 + model.config.chunk_length
        seen = model.visible(inputs, F.pad(valid, (0, count), value=True))
        seen_by_state = None if seen is None else seen[..., : 1 - count]
        positions = expert.positions(valid, count)
        state = expert.embed_state(inputs.state)
        expert.stack(state, positions[:, :1], seen_by_state, cache, keys_only=True)
        cache.keep(1)
        return PrefixCache(cache, positions[:, 1:], seen)

    @torch.no_grad()
    def image_tokens(self, images: Sequence[Tensor]) -> Tensor:
        """The model's, (B, N, width)."""
        return self.model.image_tokens(images, self._positions)

    @torch.no_grad()
    def denoise(self, prefix: PrefixCache, noise: Tensor) -> Tensor:
        """Integrate from noise (B, H, D) to actions (B, H, D) in fp32; the prefix stays usable."""
        return self.flow.integrate(partial(self.velocity, prefix), noise, self.steps)

    def velocity(self, prefix: PrefixCache, actions: Tensor, k: int, tau: float) -> Tensor:
        """One step's velocity (B, H, D) for noisy actions (B, H, D) at tau = k / steps."""
        expert, features = self.model.expert, self._embed(actions, k)
        hidden, _ = expert.stack(features, prefix.positions, prefix.seen, prefix.kv_cache)
        return expert.velocity(hidden)

    def new_cache(self, batch: int, text_tokens: int) -> StaticKVCache:
        """An empty cache with room for images, text, state and actions."""
        config, words = self.model.config, self.model.tokens.words
        return StaticKVCache(
            config.language.layers,
            batch,
            sum(config.image_tokens) + text_tokens + 1 + config.chunk_length,
            config.language.head_dim,
            device=words.device,
            dtype=words.dtype,
        )


# Answers to questions ----------------------------------------------------------------------------


@torch.no_grad()
def answer(model: SpearModel, inputs: ModelInputs, max_tokens: int) -> list[list[int]]:
    """Continue each prompt greedily until its end-of-answer token.

    Args:
        model: its state and action parts are not used.
        inputs: prompts of the batch in `text_ids`, padded on the right.
        max_tokens: longest answer.

    Returns:
        The ids of each answer, its end-of-answer token included; without one where the answer
        did not end within `max_tokens`, which `answers.parse_answer` then says.
    """
    language, words = model.config.language, model.config.vocabulary
    embedded, valid = model.prefix(inputs)
    batch, begin = valid.shape
    cache = StaticKVCache(
        language.layers,
        batch,
        begin + max_tokens,
        language.head_dim,
        device=embedded.device,
        dtype=embedded.dtype,
    )
    hidden, _ = model.language(embedded, positions_of(valid), valid.unsqueeze(1), cache)
    cache.keep(begin)
    position = valid.sum(-1, keepdim=True)
    # the prompt's last token, which padding may follow
    index = torch.arange(begin, device=valid.device).where(valid, -1).amax(-1)
    last = hidden[torch.arange(batch, device=valid.device), index].unsqueeze(1)
    answers: list[list[int]] = [[] for _ in range(batch)]
    open_rows = set(range(batch))
    for count in range(max_tokens):
        ids = ids_from_columns(model.tokens.logits(last).argmax(-1), words)
        for row in sorted(open_rows):
            answers[row].append(int(ids[row]))
            if answers[row][-1] == words.eos_id:
                open_rows.remove(row)
        if not open_rows:
            break
        valid = F.pad(valid, (0, 1), value=True)
        new = model.tokens.embed(ids)
        last, _ = model.language(new, position + count, valid.unsqueeze(1), cache)
        cache.keep(1)
    return answers
