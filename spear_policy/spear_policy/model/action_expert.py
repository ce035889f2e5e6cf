"""The action expert: state and noisy actions in, the flow's velocity out (facts/model.md 2.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_policy.model.config import STATE_DIM, ExpertConfig, ModelConfig
from spear_policy.model.language.attention import block_mask
from spear_policy.model.language.gemma import GemmaStack
from spear_policy.model.language.key_values import KeyValues


def time_embedding(tau: Tensor, width: int, config: ExpertConfig) -> Tensor:
    """Return sines, then cosines, of tau at geometrically spaced periods.

    T_i = min_period * (max_period / min_period)^(i / (width / 2 - 1)), facts/model.md 2.2; 1 is
    data and 0 is noise. The angles reach 1571 rad, hence fp64.

    Args:
        tau: (...,) in [0, 1].
        width: even.

    Returns:
        (..., width) in fp32.
    """
    steps = torch.linspace(0, 1, width // 2, dtype=torch.float64, device=tau.device)
    ratio = config.time_max_period / config.time_min_period
    periods = config.time_min_period * ratio**steps
    angles = 2 * torch.pi * tau.double().unsqueeze(-1) / periods
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float()


class ActionExpert(nn.Module):
    """A Gemma stack of its own width that reads the language model's memory, and its heads."""

    def __init__(self, config: ModelConfig):
        """Build it without values; `initialisation.initialise` or a checkpoint gives them."""
        super().__init__()
        self.config, language = config.expert, config.language
        width = self.config.width
        self.action_in = nn.Linear(config.flow.action_dim, width)
        self.state_in = nn.Linear(STATE_DIM, width)
        self.time_in = nn.Linear(2 * width, width)  # action features first, then time
        self.time_out = nn.Linear(width, width)
        self.stack = GemmaStack(language, width, self.config.mlp_width)
        self.action_out = nn.Linear(width, config.flow.action_dim)

    def forward(
        self, state: Tensor, actions: Tensor, tau: Tensor, memory: KeyValues, prefix_valid: Tensor
    ) -> Tensor:
        """Velocity of the flow, state and actions in one pass. For training.

        Args:
            state: (B, 8).
            actions: (B, H, D) noisy.
            tau: (B,) in [0, 1]; 1 is data.
            memory: of images and text.
            prefix_valid: (B, P) which of its tokens are not padding.

        Returns:
            (B, H, D) in fp32.
        """
        embedded = [self.embed_state(state), self.embed_actions(actions, tau)]
        features = torch.cat([each.to(embedded[0].dtype) for each in embedded], dim=1)
        count = features.shape[1]
        mine = torch.tensor([1] + [2] * (count - 1), device=state.device).expand(len(state), -1)
        blocks = torch.cat([torch.zeros_like(prefix_valid, dtype=mine.dtype), mine], dim=1)
        valid = F.pad(prefix_valid, (0, count), value=True)
        allowed = block_mask(blocks, valid, mine)
        positions = self.positions(prefix_valid, count)
        return self.velocity(self.stack(features, positions, allowed, memory)[:, 1:])

    def embed_state(self, state: Tensor) -> Tensor:
        """Embed (B, 8) to (B, 1, width)."""
        return self.state_in(state.to(self.state_in.weight.dtype)).unsqueeze(1)

    def embed_actions(self, actions: Tensor, tau: Tensor) -> Tensor:
        """Embed noisy actions (B, H, D) at times tau (B,) to (B, H, width)."""
        dtype = self.action_in.weight.dtype
        features = self.action_in(actions.to(dtype))
        times = time_embedding(tau, self.config.width, self.config).to(features.dtype)
        times = times.unsqueeze(1).expand(-1, features.shape[1], -1)
        hidden = F.silu(self.time_in(torch.cat([features, times], dim=-1)))
        return self.time_out(hidden)

    def velocity(self, hidden: Tensor) -> Tensor:
        """Read the velocity (B, H, D) from the stack's output, in fp32 under any autocast."""
        with torch.autocast(hidden.device.type, enabled=False):
            head = self.action_out
            return F.linear(hidden.float(), head.weight.float(), head.bias.float())

    @staticmethod
    def positions(prefix_valid: Tensor, count: int) -> Tensor:
        """Positions (B, count) of state and actions: they follow the prefix's valid tokens."""
        following = torch.arange(count, device=prefix_valid.device)
        return prefix_valid.sum(-1, keepdim=True) + following
