"""The model: two images, a sentence and a state in; text logits or the actions' velocity out.

In order: the inputs, the action expert (state and noisy actions in, the flow's
velocity out), the model that joins them with vision.py and gemma.py, and (2.2 and 4.4)
random values for a model that no checkpoint fills.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_policy.model import s3
from spear_policy.model.config import STATE_DIM, ExpertConfig, ModelConfig
from spear_policy.model.gemma import (
    GemmaStack,
    KeysValues,
    RmsNorm,
    StaticKVCache,
    TokenEmbedding,
    block_mask,
    ordered_coordinates,
    positions_of,
)
from spear_policy.model.vision import (
    DepthEncoder,
    Fusion,
    LayerScale,
    Positions,
    PositionTable,
    SiglipEncoder,
)

# Inputs ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelInputs:
    """A batch of observations.

    Attributes:
        images: one (B, 3, H, W) a camera, in the order of `config.cameras`; RGB, uint8 or float
            in [0, 1]. A missing camera is a black image.
        text_ids: (B, T) from `prompts`.
        text_valid: (B, T) false for padding; None when there is none.
        state: (B, 8): normalised position (3), rotation as a unit quaternion wxyz (4), gripper
            in [-1, 1]. None for a model without actions.
        present: (B, cameras) false for a missing camera; None when all are there.
    """

    images: tuple[Tensor, ...]
    text_ids: Tensor
    text_valid: Tensor | None = None
    state: Tensor | None = None
    present: Tensor | None = None

    def check_shapes(self, config: ModelConfig) -> None:
        """Compare shapes and dtypes with the configuration; costs nothing on any device.

        Raises:
            ValueError: names the input, what it is and what it should be.
        """
        batch = self.text_ids.shape[0]
        _expect("text_ids", self.text_ids, (batch, self.text_ids.shape[-1]))
        if self.text_ids.is_floating_point():
            raise ValueError("text_ids are not integers: tokenise the prompt first")
        if len(self.images) != len(config.cameras):
            names = [camera.name for camera in config.cameras]
            raise ValueError(f"{len(self.images)} images, but the model has the cameras {names}")
        for camera, image in zip(config.cameras, self.images, strict=True):
            shape = (batch, 3, camera.height, camera.width)
            _expect(f"the {camera.name} image", image, shape)
        optional = [
            ("text_valid", self.text_valid, tuple(self.text_ids.shape)),
            ("present", self.present, (batch, len(config.cameras))),
            ("state", self.state, (batch, STATE_DIM)),
        ]
        for name, tensor, shape in optional:
            if tensor is not None:
                _expect(name, tensor, shape)
        if config.expert and self.state is None:
            raise ValueError("state is missing: this model acts on the end-effector's state")

    def check_values(self, config: ModelConfig) -> None:
        """Look at the numbers themselves; waits for the device.

        Raises:
            ValueError: NaN, an id outside the vocabulary, an image outside [0, 1], or a state
                whose quaternion is not a unit one; names the input and the fix.
        """
        for camera, image in zip(config.cameras, self.images, strict=True):
            if not image.is_floating_point():
                continue
            # written so that NaN fails it
            if not bool(((image >= 0.0) & (image <= 1.0)).all()):
                low, high = float(image.min()), float(image.max())
                raise ValueError(
                    f"the {camera.name} image has values from {low:g} to {high:g}: give uint8, "
                    "or float between 0 and 1"
                )
        ids, words = self.text_ids, config.vocabulary
        known = (ids >= 0) & (ids < words.end) & (ids != words.image_id)
        if not bool(known.all()):
            wrong = int(ids[~known][0])
            raise ValueError(f"text_ids has {wrong}, which is no word or 3D token of this model")
        if self.state is not None:
            if not bool(torch.isfinite(self.state).all()):
                raise ValueError("state is not finite: look at the robot's state at its source")
            s3.check_unit(self.state[:, 3:7], "the rotation in state")


def _expect(name, tensor, shape):
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, not {shape}")


# The action expert -------------------------------------------------------------------------------


def time_embedding(tau: Tensor, width: int, config: ExpertConfig) -> Tensor:
    """Return sines, then cosines, of tau at geometrically spaced periods.

    T_i = min_period * (max_period / min_period)^(i / (width / 2 - 1)); 1 is
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
    """A Gemma stack of its own width that reads the language model's KV cache, and its heads."""

    def __init__(self, config: ModelConfig):
        """Build it without values; `initialise` or a checkpoint gives them."""
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
        self,
        state: Tensor,
        actions: Tensor,
        tau: Tensor,
        prefix: Sequence[KeysValues],
        prefix_valid: Tensor,
    ) -> Tensor:
        """Velocity of the flow, state and actions in one pass. For training.

        Args:
            state: (B, 8).
            actions: (B, H, D) noisy.
            tau: (B,) in [0, 1]; 1 is data.
            prefix: each layer's keys and values of images and text.
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
        return self.velocity(self.stack(features, positions, allowed, prefix)[0][:, 1:])

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
        # The meta device, on which costs are counted, has no autocast to switch off.
        with torch.autocast("cpu" if hidden.is_meta else hidden.device.type, enabled=False):
            head = self.action_out
            return F.linear(hidden.float(), head.weight.float(), head.bias.float())

    @staticmethod
    def positions(prefix_valid: Tensor, count: int) -> Tensor:
        """Positions (B, count) of state and actions: they follow the prefix's valid tokens."""
        following = torch.arange(count, device=prefix_valid.device)
        return prefix_valid.sum(-1, keepdim=True) + following


# The model ---------------------------------------------------------------------------------------


class SpearModel(nn.Module):
    """SPEAR-1, or SPEAR-VLM when the configuration has no expert.

    Built without values: give them by `build` or from a checkpoint.
    """

    def __init__(self, config: ModelConfig):
        """Make the modules that the configuration names."""
        super().__init__()
        self.config = config
        language = config.language
        self.siglip = SiglipEncoder(config.siglip, config.patch_size)
        self.depth = DepthEncoder(config.depth, config.patch_size) if config.depth else None
        self.fusion = Fusion(config)
        self.tokens = TokenEmbedding(config.vocabulary, language.width)
        self.language = GemmaStack(language, language.width, language.mlp_width)
        self.expert = ActionExpert(config) if config.expert else None
        for name in self.unused_parameters():
            self.get_parameter(name).requires_grad_(False)

    def unused_parameters(self) -> list[str]:
        """Names of the parameters that no training of this model uses; they want no gradient.

        They stay in checkpoints, so that public weights and those of stage 1 load without
        remainder. Actions see only keys and values of images and text: with an expert the 3D
        tokens, the rest of the last language layer and the norm after it are among them.
        """
        depth, last = self.config.depth, self.config.language.layers - 1
        starts = ["depth.mask_token"]
        if depth:
            unread = range(depth.output_layers[-1] + 1, depth.layers)
            starts += [f"depth.blocks.{index}." for index in unread]
        if self.config.expert:
            rest = ("out", "norm2", "gate_up", "down")
            starts += [f"language.layers.{last}.{part}." for part in rest]
            starts += ["language.norm.", "tokens.coordinates"]
        return [name for name, _ in self.named_parameters() if name.startswith(tuple(starts))]

    def forward(
        self,
        inputs: ModelInputs,
        actions: Tensor | None = None,
        tau: Tensor | None = None,
        *,
        bidirectional: Tensor | None = None,
    ) -> Tensor:
        """`velocity` for actions and `text_logits` without: what DDP, FSDP and compile wrap."""
        if actions is None:
            return self.text_logits(inputs, bidirectional)
        return self.velocity(inputs, actions, tau)

    def positions(self) -> list[Positions]:
        """The encoders' positions at the grids of the cameras, for `image_tokens`."""
        grids = {self.config.grid(camera) for camera in self.config.cameras}
        encoders = [self.siglip] if self.depth is None else [self.siglip, self.depth]
        return [{grid: each.positions(*grid) for grid in grids} for each in encoders]

    def image_tokens(
        self, images: Sequence[Tensor], positions: Sequence[Positions | None] = (None, None)
    ) -> Tensor:
        """Encode and fuse the images of any cameras.

        Args:
            images: one (B, 3, H, W) a camera, uint8 or float in [0, 1].
            positions: of `positions`, while the weights stay as they are.

        Returns:
            (B, N, width), camera after camera.
        """
        dtype = self.siglip.patch.weight.dtype
        images = [
            image.to(dtype) if image.is_floating_point() else image.to(dtype) / 255.0
            for image in images
        ]
        depth = self.depth(images, positions[1]) if self.depth is not None else None
        return self.fusion(self.siglip(images, positions[0]), depth)

    def prefix(
        self, inputs: ModelInputs, image_tokens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Embed images and text.

        Args:
            inputs: what to read.
            image_tokens: of its images, where they are known already.

        Returns:
            (B, P, width) embeddings and (B, P) which of them are not padding. Image tokens
            enter as they are, words times sqrt(width).
        """
        if image_tokens is None:
            image_tokens = self.image_tokens(inputs.images)
        text = self.tokens.embed(inputs.text_ids)
        valid = inputs.text_valid
        if valid is None:
            valid = torch.ones_like(inputs.text_ids, dtype=torch.bool)
        return torch.cat([image_tokens.to(text.dtype), text], dim=1), torch.cat(
            [self._images_valid(inputs), valid], dim=1
        )

    def text_logits(self, inputs: ModelInputs, bidirectional: Tensor | None = None) -> Tensor:
        """Logits of the next token at every text position. For stage 1.

        Args:
            inputs: prompt and answers in `text_ids`.
            bidirectional: (B, T) true for the prompt; the other tokens see only what is before
                them. None: all are prompt.

        Returns:
            (B, T, words and 3D tokens), in the column order of `gemma.TokenEmbedding`.
        """
        embedded, valid = self.prefix(inputs)
        allowed = valid.unsqueeze(1)
        if bidirectional is not None:
            causal = torch.cat(
                [torch.zeros_like(valid[:, : -bidirectional.shape[1]]), ~bidirectional], dim=1
            )
            allowed = block_mask(causal.long().cumsum(-1), valid)
        hidden, _ = self.language(embedded, positions_of(valid), allowed)
        return self.tokens.logits(hidden[:, -inputs.text_ids.shape[1] :])

    def prefill(
        self,
        inputs: ModelInputs,
        cache: StaticKVCache | None = None,
        image_tokens: Tensor | None = None,
    ) -> tuple[list[KeysValues], Tensor]:
        """Read images and text, into the empty cache if there is one; `image_tokens`: see `prefix`.

        Returns:
            Each layer's keys and values, and (B, P) which of their tokens are not padding.
        """
        embedded, valid = self.prefix(inputs, image_tokens)
        seen = self.visible(inputs, valid)
        _, found = self.language(embedded, positions_of(valid), seen, cache, keys_only=True)
        return found, valid

    def velocity(self, inputs: ModelInputs, actions: Tensor, tau: Tensor) -> Tensor:
        """Velocity of the flow, everything in one differentiable pass. For training.

        Args:
            inputs: with `state`.
            actions: (K * B, H, D) noisy, as `flow_matching` lays them out. Row i is of observation
                i % B, so K draws share one reading of the images.
            tau: (K * B,) in [0, 1]; 1 is data.

        Returns:
            (K * B, H, D) in fp32.
        """
        prefix, valid = self.prefill(inputs)
        draws, state = len(actions) // len(valid), inputs.state
        if draws > 1:
            prefix = [tuple(each.repeat(draws, 1, 1) for each in pair) for pair in prefix]
            state, valid = state.repeat(draws, 1), valid.repeat(draws, 1)
        return self.expert(state, actions, tau, prefix, valid)

    def visible(self, inputs: ModelInputs, valid: Tensor) -> Tensor | None:
        """The mask (B, 1, N) of valid keys; None when all are, which is faster than ones."""
        hides_cameras = self.config.mask_missing_camera and inputs.present is not None
        if inputs.text_valid is None and not hides_cameras:
            return None
        return valid.unsqueeze(1)

    def _images_valid(self, inputs):
        shape = (len(inputs.text_ids), sum(self.config.image_tokens))
        if inputs.present is None or not self.config.mask_missing_camera:
            return torch.ones(shape, dtype=torch.bool, device=inputs.text_ids.device)
        columns = inputs.present.split(1, dim=1)
        counts = self.config.image_tokens
        return torch.cat([c.expand(-1, n) for c, n in zip(columns, counts, strict=True)], dim=1)


# Random values -----------------------------------------------------------------------------------

TABLE_STD = 0.02  # of learned positions and of the depth projector, as in PaliGemma's code


def build(
    config: ModelConfig,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> SpearModel:
    """Make a model with random values; the same seed gives the same values on one device."""
    with torch.device("meta"):
        model = SpearModel(config)
    model = model.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    initialise(model, generator)
    return model.eval()


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Give values to every parameter of a module and of what is in it.

    Linear and convolution weights are LeCun normal (variance 1 / fan in), biases and the offsets
    of RMS norms are 0, layer norms and layer scales 1.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            fan_in = part.weight[0].numel()
            part.weight.normal_(0.0, 1.0 / math.sqrt(fan_in), generator=generator)
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, nn.LayerNorm):
            part.weight.fill_(1.0)
            part.bias.zero_()
        elif isinstance(part, RmsNorm):
            part.weight.zero_()
        elif isinstance(part, LayerScale):
            part.gamma.fill_(1.0)
        elif isinstance(part, PositionTable):
            part.table.normal_(0.0, TABLE_STD, generator=generator)
        elif isinstance(part, TokenEmbedding):
            # look-ups are multiplied by sqrt(width)
            width = part.words.shape[1]
            part.words.normal_(0.0, 1.0 / math.sqrt(width), generator=generator)
            rows = len(part.coordinates)
            part.coordinates.copy_(ordered_coordinates(rows, width, generator, part.words.device))
    if isinstance(module, SpearModel):
        _initialise_image_parts(module, generator)


def _initialise_image_parts(model, generator):
    if model.depth is not None:
        for token in (model.depth.class_token, model.depth.class_position):
            token.normal_(0.0, TABLE_STD, generator=generator)
        model.depth.mask_token.zero_()
        projector = model.fusion.depth_projector.weight
        if model.config.depth_projector_init == "zero":
            projector.zero_()
        else:
            projector.normal_(0.0, TABLE_STD, generator=generator)
