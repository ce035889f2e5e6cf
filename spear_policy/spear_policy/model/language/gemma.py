"""Gemma's decoder layers, for the language model and for the action expert alike.

Both read one stream of keys and values: the expert's tokens attend to what the language model
remembered of images and text. As nothing in the prefix sees the expert's tokens, the joint
attention of pi0 is exactly this: first one stack, then the other over its memory
(facts/model.md 1.8 and 1.9; test_joint_attention.py compares it with the joint form).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_policy.model.config import LanguageConfig
from spear_policy.model.language.attention import multi_query_attention, rotary_tables, rotate
from spear_policy.model.language.key_values import KeyValues

NORM_EPS = 1e-6


class RmsNorm(nn.Module):
    """x / sqrt(mean x^2 + eps) * (1 + weight), computed in fp32."""

    def __init__(self, width: int):
        """The weight is an offset from one."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., width); the dtype stays."""
        normal = F.rms_norm(x.float(), x.shape[-1:], eps=NORM_EPS)
        return (normal * (1.0 + self.weight.float())).to(x.dtype)


class GemmaLayer(nn.Module):
    """One layer: multi-query attention and a gated MLP, no biases."""

    def __init__(self, width: int, mlp_width: int, heads: int, head_dim: int):
        """The query, key and value matrices are one, and so are gate and up."""
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.norm1 = RmsNorm(width)
        self.qkv = nn.Linear(width, (heads + 2) * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, width, bias=False)
        self.norm2 = RmsNorm(width)
        self.gate_up = nn.Linear(width, 2 * mlp_width, bias=False)
        self.down = nn.Linear(mlp_width, width, bias=False)

    def forward(self, x: Tensor, rotary, allowed: Tensor | None, view) -> Tensor:
        """Return (B, S, width) from (B, S, width); `view` is the memory's, for this layer."""
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (-1, self.head_dim))
        q, k, v = qkv.split([self.heads, 1, 1], dim=-2)
        keys, values = view(rotate(k, rotary).squeeze(-2), v.squeeze(-2))
        x = x + self.out(multi_query_attention(rotate(q, rotary), keys, values, allowed))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.gelu(gate, approximate="tanh") * up)

    def remember(self, x: Tensor, rotary, view) -> None:
        """Only put this layer's keys and values into the memory."""
        rows = self.qkv.weight[self.heads * self.head_dim :]
        k, v = F.linear(self.norm1(x), rows).unflatten(-1, (2, self.head_dim)).unbind(-2)
        view(rotate(k.unsqueeze(-2), rotary).squeeze(-2), v)


class GemmaStack(nn.Module):
    """The layers and the final norm."""

    def __init__(self, language: LanguageConfig, width: int, mlp_width: int):
        """Build it without values; `initialisation.initialise` or a checkpoint gives them.

        Args:
            language: layers, heads, head_dim and rope_base, which both stacks share.
            width, mlp_width: of this stack.
        """
        super().__init__()
        self.head_dim, self.rope_base = language.head_dim, language.rope_base
        self.layers = nn.ModuleList(
            GemmaLayer(width, mlp_width, language.heads, language.head_dim)
            for _ in range(language.layers)
        )
        self.norm = RmsNorm(width)

    def forward(
        self, x: Tensor, positions: Tensor, allowed: Tensor | None, memory: KeyValues
    ) -> Tensor:
        """Run new tokens through all layers.

        Args:
            x: (B, S, width) embeddings.
            positions: (B, S).
            allowed: see `multi_query_attention`; keys are the memory's tokens, then these.
            memory: is viewed, not kept.

        Returns:
            (B, S, width) after the final norm.
        """
        rotary = rotary_tables(positions, self.head_dim, self.rope_base)
        for index, layer in enumerate(self.layers):
            x = layer(x, rotary, allowed, _viewer(memory, index))
        return self.norm(x)

    def remember(
        self, x: Tensor, positions: Tensor, allowed: Tensor | None, memory: KeyValues
    ) -> None:
        """Keep the keys and values of new tokens; what only their output needs is not computed.

        In the last layer that is everything but keys and values, and the final norm: 109.1 of
        Gemma-2B's 1,981.9 million parameters (facts/model.md 1.9).
        """
        rotary = rotary_tables(positions, self.head_dim, self.rope_base)
        *first, last = self.layers
        for index, layer in enumerate(first):
            x = layer(x, rotary, allowed, _viewer(memory, index))
        last.remember(x, rotary, _viewer(memory, len(first)))
        memory.keep(x.shape[1])


def _viewer(memory, layer):
    return lambda k, v: memory.view(layer, k, v)
