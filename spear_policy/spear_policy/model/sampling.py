"""From observation to chunk: the prefix and the state are read once, then ten small steps.

Nothing in the prefix sees the state, and neither sees the actions (facts/model.md 1.8), so both
stay in the memory while the actions flow from noise to data.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_policy.model.action_expert import ActionExpert, time_embedding
from spear_policy.model.flow.matching import FlowMatching
from spear_policy.model.inputs import ModelInputs
from spear_policy.model.language.key_values import FixedMemory
from spear_policy.model.spear import SpearModel


class FoldedActionEmbedding:
    """The expert's embedding of (actions, tau_k) with everything known beforehand worked out.

    W_1 [W_in a + b; phi(tau_k)] + b_1 = (W_1a W_in) a + table_k: one small product and a row of a
    table for each of the sampler's times (facts/model.md 2.2). Exact up to rounding.
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


class Sampler:
    """Draws chunks from a model that is not being trained.

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
            raise ValueError(f"{model.config.name} has no action expert: it answers questions only")
        self.model, self.flow = model, FlowMatching(model.config.flow)
        self.steps = model.config.flow.steps if steps is None else steps
        if self.steps < 1:
            raise ValueError(f"{self.steps} sampling steps: at least 1 is needed")
        with torch.no_grad():
            taus = torch.arange(self.steps) / self.steps
            self._embed = FoldedActionEmbedding(model.expert, taus)

    @torch.no_grad()
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
            generator: on the model's device; the same seed and inputs give the same chunk.

        Returns:
            (B, H, D) fp32, laid out as `flow_matching` says.

        Raises:
            ValueError: an input has a wrong shape; it is named.
        """
        model, config = self.model, self.model.config
        inputs.check_shapes(config)
        batch, device = inputs.text_ids.shape[0], inputs.text_ids.device
        if noise is None:
            noise = self.flow.noise(batch, config.chunk_length, generator=generator, device=device)
        memory = self._memory(inputs)
        valid = model.remember(inputs, memory)
        count = 1 + config.chunk_length
        seen = model.visible(inputs, F.pad(valid, (0, count), value=True))
        seen_by_state = None if seen is None else seen[..., : 1 - count]
        positions = model.expert.positions(valid, count)
        expert = model.expert
        state = expert.embed_state(inputs.state)
        expert.stack.remember(state, positions[:, :1], seen_by_state, memory)

        def velocity(actions, k, tau):
            features = self._embed(actions, k)
            return expert.velocity(expert.stack(features, positions[:, 1:], seen, memory))

        return self.flow.integrate(velocity, noise, self.steps)

    def _memory(self, inputs):
        config = self.model.config
        capacity = sum(config.image_tokens) + inputs.text_ids.shape[1] + 1 + config.chunk_length
        return FixedMemory(
            config.language.layers,
            inputs.text_ids.shape[0],
            capacity,
            config.language.head_dim,
            device=inputs.text_ids.device,
            dtype=self.model.tokens.words.dtype,
        )
