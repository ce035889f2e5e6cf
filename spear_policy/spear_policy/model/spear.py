"""The model: two images, a sentence and a state in; text logits or the actions' velocity out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spear_policy.model.action_expert import ActionExpert
from spear_policy.model.config import ModelConfig
from spear_policy.model.inputs import ModelInputs
from spear_policy.model.language.attention import block_mask, positions_of
from spear_policy.model.language.gemma import GemmaStack
from spear_policy.model.language.key_values import GrowingMemory, KeyValues
from spear_policy.model.language.token_tables import TokenTables
from spear_policy.model.vision.depth_encoder import DepthEncoder
from spear_policy.model.vision.fusion import Fusion
from spear_policy.model.vision.siglip import SiglipEncoder


class SpearModel(nn.Module):
    """SPEAR-1, or SPEAR-VLM when the configuration has no expert.

    Built without values: give them by `initialisation.build` or from a checkpoint.
    """

    def __init__(self, config: ModelConfig):
        """Make the modules that the configuration names."""
        super().__init__()
        self.config = config
        language = config.language
        self.siglip = SiglipEncoder(config.siglip, config.patch_size)
        self.depth = DepthEncoder(config.depth, config.patch_size) if config.depth else None
        self.fusion = Fusion(config)
        self.tokens = TokenTables(config.vocabulary, language.width)
        self.language = GemmaStack(language, language.width, language.mlp_width)
        self.expert = ActionExpert(config) if config.expert else None

    def image_tokens(self, images: Sequence[Tensor], points: Tensor | None = None) -> Tensor:
        """Encode and fuse the images of any cameras.

        Args:
            images: one (B, 3, H, W) a camera, uint8 or float in [0, 1].
            points: (B, N, 3) for all patches of these cameras, for fusion point_map.

        Returns:
            (B, N, width), camera after camera.
        """
        dtype = self.siglip.patch.weight.dtype
        images = [
            image.to(dtype) if image.is_floating_point() else image.to(dtype) / 255.0
            for image in images
        ]
        depth = self.depth(images) if self.depth is not None else None
        return self.fusion(self.siglip(images), depth, points)

    def prefix(
        self, inputs: ModelInputs, image_tokens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Embed images and text.

        Args:
            inputs: what to read.
            image_tokens: of its images, where they are known already.

        Returns:
            (B, P, width) embeddings and (B, P) which of them are not padding. Image tokens
            enter as they are, words times sqrt(width) (facts/model.md 1.6).
        """
        if image_tokens is None:
            points = torch.cat(inputs.points, dim=1) if inputs.points is not None else None
            image_tokens = self.image_tokens(inputs.images, points)
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
            (B, T, words and 3D tokens), in the column order of `token_tables`.
        """
        embedded, valid = self.prefix(inputs)
        allowed = valid.unsqueeze(1)
        if bidirectional is not None:
            causal = torch.cat(
                [torch.zeros_like(valid[:, : -bidirectional.shape[1]]), ~bidirectional], dim=1
            )
            allowed = block_mask(causal.long().cumsum(-1), valid)
        memory = GrowingMemory(self.config.language.layers)
        hidden = self.language(embedded, positions_of(valid), allowed, memory)
        return self.tokens.logits(hidden[:, -inputs.text_ids.shape[1] :])

    def remember(
        self, inputs: ModelInputs, memory: KeyValues, image_tokens: Tensor | None = None
    ) -> Tensor:
        """Read images and text into the memory; for `image_tokens` see `prefix`.

        Returns:
            (B, P) which of its tokens are not padding.
        """
        embedded, valid = self.prefix(inputs, image_tokens)
        self.language.remember(embedded, positions_of(valid), self.visible(inputs, valid), memory)
        return valid

    def velocity(self, inputs: ModelInputs, actions: Tensor, tau: Tensor) -> Tensor:
        """Velocity of the flow, everything in one differentiable pass. For training.

        Args:
            inputs: with `state`.
            actions: (B, H, D) noisy, as `flow_matching` lays them out.
            tau: (B,) in [0, 1]; 1 is data.

        Returns:
            (B, H, D) in fp32.
        """
        memory = GrowingMemory(self.config.language.layers)
        valid = self.remember(inputs, memory)
        return self.expert(inputs.state, actions, tau, memory, valid)

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
