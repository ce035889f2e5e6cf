"""What one inference costs in arithmetic and memory traffic, and how fast it could at best be.

Multiply-adds of matrix products and attention, two operations each; norms, activations and
biases are left out (below one percent). Batch 1.
"""

from dataclasses import dataclass

from spear_policy.model.config import STATE_DIM, ModelConfig


@dataclass(frozen=True)
class Stage:
    """One part of an inference.

    Attributes:
        flops: floating-point operations.
        bytes_read: weights, and keys and values where they are read again.
    """

    name: str
    flops: float
    bytes_read: float

    def times(self, count: int) -> "Stage":
        """The same, `count` times over."""
        return Stage(f"{count} x {self.name}", count * self.flops, count * self.bytes_read)


@dataclass(frozen=True)
class Device:
    """Dense bf16 arithmetic and memory bandwidth of a GPU (facts/model.md 7).

    The H200's are measured sustained figures, the others data-sheet ones.
    """

    name: str
    flops_per_s: float
    bytes_per_s: float

    def floor_s(self, stage: Stage) -> float:
        """No implementation can be faster: the larger of arithmetic and memory time."""
        return max(stage.flops / self.flops_per_s, stage.bytes_read / self.bytes_per_s)


DEVICES = (
    Device("H200", 790e12, 4.3e12),
    Device("RTX 4090", 165e12, 1.008e12),
    Device("Jetson Thor", 250e12, 273e9),
    Device("Jetson Orin 64 GB", 42.6e12, 205e9),
)


def inference_stages(
    config: ModelConfig, text_tokens: int = 20, steps: int | None = None, bytes_per_value: int = 2
) -> list[Stage]:
    """Cost of one chunk: the encoders, the prefix and all denoising steps.

    Dead work is not counted: of the prefix's last layer only keys and values are needed.

    Args:
        config: with or without an expert (then without denoising steps).
        text_tokens: of the prompt.
        steps: denoising steps; the configuration's when not given.
        bytes_per_value: 2 for bf16.
    """
    images = sum(config.image_tokens)
    prefix = images + text_tokens
    stages = [_encoder("SigLIP", config, config.siglip, class_tokens=0)]
    if config.depth:
        stages.append(_encoder("depth encoder", config, config.depth, class_tokens=1))
    stages.append(_projectors(config, images))
    stages.append(_language_prefix(config, prefix))
    stages = [Stage(s.name, s.flops, s.bytes_read * bytes_per_value) for s in stages]
    if config.expert:
        step = _denoising_step(config, prefix)
        step = Stage(step.name, step.flops, step.bytes_read * bytes_per_value)
        stages.append(step.times(config.flow.steps if steps is None else steps))
    return stages


def total(stages: list[Stage], name: str = "total") -> Stage:
    """Add stages up."""
    return Stage(name, sum(s.flops for s in stages), sum(s.bytes_read for s in stages))


def _encoder(name, config, encoder, class_tokens):
    lengths = [count + class_tokens for count in config.image_tokens]
    layer = 4 * encoder.width**2 + 2 * encoder.width * encoder.mlp_width
    patch = 3 * config.patch_size**2 * encoder.width
    attention = 4 * encoder.width * sum(n * n for n in lengths)
    flops = 2 * (patch * sum(config.image_tokens) + encoder.layers * layer * sum(lengths))
    return Stage(name, flops + encoder.layers * attention, patch + encoder.layers * layer)


def _projectors(config, tokens):
    inputs = config.siglip.width + (config.depth.output_width if config.depth else 0)
    weights = inputs * config.language.width
    return Stage("projectors", 2 * weights * tokens, weights)


def _gemma_layer(language, width, mlp_width):
    """Weights of one layer, and those that only make keys and values."""
    keys_values = 2 * width * language.head_dim
    attention = 2 * width * language.heads * language.head_dim + keys_values
    return attention + 3 * width * mlp_width, keys_values


def _language_prefix(config, tokens):
    language = config.language
    layer, keys_values = _gemma_layer(language, language.width, language.mlp_width)
    full = language.layers - 1
    weights = full * layer + keys_values
    attention = full * 4 * tokens**2 * language.heads * language.head_dim
    return Stage("language prefix", 2 * weights * tokens + attention, weights)


def _denoising_step(config, prefix):
    language, expert = config.language, config.expert
    layer, _ = _gemma_layer(language, expert.width, expert.mlp_width)
    actions, seen = config.chunk_length, prefix + 1 + config.chunk_length
    weights = language.layers * layer
    attention = language.layers * 4 * actions * seen * language.heads * language.head_dim
    heads = expert.width * (2 * config.flow.action_dim + STATE_DIM + 3 * expert.width)
    memory = language.layers * 2 * seen * language.head_dim
    return Stage("denoising step", 2 * weights * actions + attention, weights + heads + memory)
