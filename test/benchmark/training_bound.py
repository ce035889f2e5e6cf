"""The arithmetic of a training step, written out by hand with nothing else around it.

No modules, no checks, no configuration, no figures: the losses of both stages as plain tensor
operations over the model's own weights, so that loss and gradients must agree with the model's.
Masks, positions and noise are worked out beforehand. training_step.py compares the model with it.
"""

import torch
import torch.nn.functional as F
from lower_bound import encode, turn

from spear_policy.model.spear import time_embedding


class TrainingBound:
    """One batch for a model without a depth encoder and with images of one size.

    Attributes:
        sample: the draw of noise and time that the actions' loss takes.
    """

    def __init__(self, model, inputs, sample=None, prompt=None):
        """Work out what is no arithmetic of weights.

        Args:
            model: whose weights are used.
            inputs: with `text_valid`, and with `state` for actions.
            sample: of the flow, for actions.
            prompt: (B, T) true where text is no answer, for answers.
        """
        self.model, self.config, self.sample = model, model.config, sample
        self.images = 2 * torch.stack(inputs.images) - 1
        self.batch, self.ids, self.state = len(inputs.text_ids), inputs.text_ids, inputs.state
        count = sum(self.config.image_tokens)
        valid = F.pad(inputs.text_valid, (count, 0), value=True)
        self.rotary = self._rotary((valid.long().cumsum(-1) - 1).clamp_min(0))
        self.mask = valid[:, None, None]
        heads, length = self.config.language.heads, self.config.chunk_length + 1
        if prompt is not None:
            blocks = F.pad(~prompt, (count, 0)).long().cumsum(-1)
            seen = (blocks[:, None] <= blocks[:, :, None]) & valid[:, None]
            self.mask = seen.repeat_interleave(heads, 1)[:, None]
            targets = inputs.text_ids.where(inputs.text_valid & ~prompt, -100)[:, 1:]
            words = self.config.vocabulary
            self.targets = torch.where(targets > words.image_id, targets - 1, targets).flatten()
        if sample is not None:
            following = valid.sum(-1, keepdim=True) + torch.arange(length)
            self.action_rotary = self._rotary(following)
            seen = torch.ones(self.batch, length, length, dtype=torch.bool)
            seen[:, 0, 1:] = False
            seen = torch.cat([valid[:, None].expand(-1, length, -1), seen], -1)
            self.action_mask = seen.repeat_interleave(heads, 1)[:, None]
            width = self.config.expert.width
            times = time_embedding(sample.tau, width, self.config.expert)
            self.times = times[:, None].expand(-1, length - 1, -1)
            self.velocity = sample.targets - sample.noise

    def _rotary(self, positions):
        language = self.config.language
        exponents = torch.arange(0, language.head_dim, 2) / language.head_dim
        angles = positions[..., None, None] * language.rope_base**-exponents
        return angles.cos(), angles.sin()

    def actions(self):
        """The loss of stage 2 with squared errors throughout."""
        _, found = self._decode(
            self.model.language, self._prefix(), self.rotary, self.mask, keys_only=True
        )
        expert = self.model.expert
        state = F.linear(self.state, *_both(expert.state_in))[:, None]
        a = torch.cat([F.linear(self.sample.noisy, *_both(expert.action_in)), self.times], -1)
        a = F.linear(F.silu(F.linear(a, *_both(expert.time_in))), *_both(expert.time_out))
        x = torch.cat([state, a], 1)
        x, _ = self._decode(expert.stack, x, self.action_rotary, self.action_mask, found)
        v = F.linear(x[:, 1:], *_both(expert.action_out))
        return (v - self.velocity).square().sum(-1).mean()

    def answers(self):
        """The loss of stage 1."""
        x, _ = self._decode(self.model.language, self._prefix(), self.rotary, self.mask)
        x, tokens = x[:, -self.ids.shape[1] :], self.model.tokens
        scores = torch.cat([F.linear(x, tokens.words), F.linear(x, tokens.coordinates)], -1)
        return F.cross_entropy(scores[:, :-1].flatten(0, 1), self.targets)

    def _prefix(self):
        model, config = self.model, self.config
        siglip = model.siglip
        x = F.conv2d(self.images.flatten(0, 1), *_both(siglip.patch), stride=config.patch_size)
        x = x.flatten(2).transpose(1, 2) + siglip.positions(*config.grid(config.cameras[0]))
        blocks = [
            tuple(_both(p) for p in (b.norm1, b.qkv, b.out, b.norm2, b.fc1, b.fc2))
            for b in siglip.blocks
        ]
        x = encode(blocks, x, x.shape[1], config.siglip.heads)
        x = F.layer_norm(x, x.shape[-1:], *_both(siglip.norm), 1e-6)
        x = F.linear(x, *_both(model.fusion.siglip_projector))
        x = x.unflatten(0, (-1, self.batch)).transpose(0, 1).flatten(1, 2)
        words = F.embedding(self.ids, model.tokens.words) * config.language.width**0.5
        return torch.cat([x, words], 1)

    def _decode(self, stack, x, rotary, mask, before=None, keys_only=False):
        heads, dim = self.config.language.heads, self.config.language.head_dim
        batch, length, width = x.shape
        found = []
        for i, layer in enumerate(stack.layers):
            y = F.rms_norm(x, (width,), 1 + layer.norm1.weight, 1e-6)
            if keys_only and i == len(stack.layers) - 1:
                k, v = F.linear(y, layer.qkv.weight[heads * dim :]).split(dim, -1)
                return None, [*found, (turn(k[:, :, None], *rotary)[:, :, 0], v)]
            q, k, v = F.linear(y, layer.qkv.weight).split([heads * dim, dim, dim], -1)
            k = turn(k[:, :, None], *rotary)[:, :, 0]
            if before:
                k, v = torch.cat([before[i][0], k], 1), torch.cat([before[i][1], v], 1)
            found.append((k, v))
            q = turn(q.view(batch, length, heads, dim), *rotary).reshape(batch, 1, -1, dim)
            seen = F.scaled_dot_product_attention(q, k[:, None], v[:, None], mask)
            x = x + F.linear(seen.view(batch, length, -1), layer.out.weight)
            y = F.rms_norm(x, (width,), 1 + layer.norm2.weight, 1e-6)
            gate, up = F.linear(y, layer.gate_up.weight).chunk(2, -1)
            x = x + F.linear(F.gelu(gate, approximate="tanh") * up, layer.down.weight)
        return F.rms_norm(x, (width,), 1 + stack.norm.weight, 1e-6), found


def _both(part):
    return part.weight, part.bias
