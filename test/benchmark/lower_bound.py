"""The same arithmetic as the sampler, written out by hand with nothing else around it.

No modules, no checks, no configuration: what Python and torch need at least for these shapes. The
benchmark compares the model with it. Weights are the model's own, so the outputs must agree.
"""

import torch
import torch.nn.functional as F


def encode(block_weights, x, count, heads):
    """SigLIP's blocks over images of `count` patches each."""
    for norm1, qkv, out, norm2, fc1, fc2 in block_weights:
        width = x.shape[-1]
        y = F.layer_norm(x, (width,), *norm1, 1e-6)
        q, k, v = F.linear(y, *qkv).view(-1, count, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + F.linear(seen, *out)
        y = F.layer_norm(x, (width,), *norm2, 1e-6)
        x = x + F.linear(F.gelu(F.linear(y, *fc1), approximate="tanh"), *fc2)
    return x


def turn(x, cos, sin):
    """Rotary positions; x is (S, heads, head_dim)."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def decode(layers, x, cos, sin, heads, keys, values, begin, keep_all=True):
    """Gemma layers over x (S, width), writing keys and values from row `begin` on."""
    end = begin + len(x)
    last = len(layers) - 1
    for i, (norm1, qkv, out, norm2, gate_up, down) in enumerate(layers):
        y = F.rms_norm(x, x.shape[-1:], norm1, 1e-6)
        dim = keys.shape[-1]
        if i == last and not keep_all:
            k, v = F.linear(y, qkv[heads * dim :]).split(dim, -1)
            keys[i, begin:end], values[i, begin:end] = turn(k[:, None], cos, sin)[:, 0], v
            return None
        q, k, v = F.linear(y, qkv).split([heads * dim, dim, dim], -1)
        keys[i, begin:end], values[i, begin:end] = turn(k[:, None], cos, sin)[:, 0], v
        q = turn(q.view(len(x), heads, dim), cos, sin).reshape(1, 1, -1, dim)
        kv = keys[i, :end][None, None], values[i, :end][None, None]
        x = x + F.linear(F.scaled_dot_product_attention(q, *kv).view(len(x), -1), out)
        y = F.rms_norm(x, x.shape[-1:], norm2, 1e-6)
        gate, up = F.linear(y, gate_up).chunk(2, -1)
        x = x + F.linear(F.gelu(gate, approximate="tanh") * up, down)
    return x


class LowerBound:
    """Holds a model's weights as plain tensors."""

    def __init__(self, model, steps):
        """Take the weights; `model` has no depth encoder and square images of one size."""
        both = lambda part: (part.weight, part.bias)  # noqa: E731
        self.steps, self.config, self.model = steps, model.config, model
        self.vision = [
            tuple(both(p) for p in (b.norm1, b.qkv, b.out, b.norm2, b.fc1, b.fc2))
            for b in model.siglip.blocks
        ]
        self.prefix_layers = self._layers(model.language)
        self.expert_layers = self._layers(model.expert.stack)
        expert = model.expert
        width = expert.config.width
        from spear_policy.model.spear import time_embedding

        taus = torch.arange(steps) / steps
        first = expert.time_in.weight
        self.matrix = first[:, :width] @ expert.action_in.weight
        bias = first[:, :width] @ expert.action_in.bias + expert.time_in.bias
        self.table = time_embedding(taus, width, expert.config) @ first[:, width:].T + bias
        language = model.config.language
        self.count = sum(model.config.image_tokens)
        frequencies = language.rope_base ** (
            -torch.arange(0, language.head_dim, 2) / language.head_dim
        )
        angles = torch.arange(self.count + 100)[:, None] * frequencies
        self.cos, self.sin = angles.cos()[:, None], angles.sin()[:, None]

    @staticmethod
    def _layers(stack):
        return [
            (
                1 + layer.norm1.weight,
                layer.qkv.weight,
                layer.out.weight,
                1 + layer.norm2.weight,
                layer.gate_up.weight,
                layer.down.weight,
            )
            for layer in stack.layers
        ]

    @torch.no_grad()
    def __call__(self, images, ids, state, noise):
        """One chunk (H, 8): the same as the sampler's."""
        model, config = self.model, self.config
        x = F.conv2d(2 * images - 1, *self._patch(), stride=config.patch_size)
        x = x.flatten(2).transpose(1, 2) + self._positions()
        x = encode(self.vision, x, x.shape[1], config.siglip.heads)
        x = F.layer_norm(x, x.shape[-1:], model.siglip.norm.weight, model.siglip.norm.bias, 1e-6)
        projector = model.fusion.siglip_projector
        x = F.linear(x, projector.weight, projector.bias).flatten(0, 1)
        language = config.language
        x = torch.cat([x, model.tokens.words[ids] * language.width**0.5])
        begin, length = len(x), len(noise)
        shape = (language.layers, begin + 1 + length, language.head_dim)
        keys, values = torch.empty(shape), torch.empty(shape)

        def rows(first, count):
            return self.cos[first : first + count], self.sin[first : first + count]

        args = language.heads, keys, values
        decode(self.prefix_layers, x, *rows(0, begin), *args, 0, keep_all=False)
        expert = model.expert
        s = F.linear(state, expert.state_in.weight, expert.state_in.bias)
        decode(self.expert_layers, s[None], *rows(begin, 1), *args, begin, keep_all=False)
        a, tables = noise, rows(begin + 1, length)
        for k in range(self.steps):
            h = F.silu(F.linear(a, self.matrix) + self.table[k])
            h = F.linear(h, expert.time_out.weight, expert.time_out.bias)
            h = decode(self.expert_layers, h, *tables, *args, begin + 1)
            h = F.rms_norm(h, h.shape[-1:], 1 + expert.stack.norm.weight, 1e-6)
            v = F.linear(h, expert.action_out.weight, expert.action_out.bias)
            a = self._step(a, v)
        return a

    def _patch(self):
        return self.model.siglip.patch.weight, self.model.siglip.patch.bias

    def _positions(self):
        rows, columns = self.config.grid(self.config.cameras[0])
        return self.model.siglip.positions(rows, columns)

    def _step(self, a, v):
        d = 1.0 / self.steps
        q, u = a[:, 3:7], v[:, 3:7]
        u = u - (q * u).sum(-1, keepdim=True) * q
        speed = (u.square().sum(-1, keepdim=True) + 1e-12).sqrt()
        q = torch.cos(speed * d) * q + torch.sin(speed * d) / speed * u
        q = q / q.norm(dim=-1, keepdim=True)
        q = torch.where(q[:, :1] < 0, -q, q)
        return torch.cat([a[:, :3] + d * v[:, :3], q, a[:, 7:] + d * v[:, 7:]], -1)
