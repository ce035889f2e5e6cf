"""How many parameters each part of a model has, counted on the meta device."""

import torch

from spear_policy.model.config import ModelConfig
from spear_policy.model.spear import SpearModel


def parameter_counts(config: ModelConfig) -> dict[str, int]:
    """Count by part, without memory for the values.

    Returns:
        siglip, siglip_projector, gemma, words, depth, depth_projector, point_embedding,
        coordinates, expert, heads; the parts that the model lacks count 0. Then the sums
        paligemma, spear_vlm and total. The heads are those for actions, state and time.
    """
    with torch.device("meta"):
        model = SpearModel(config)
    fusion, expert = model.fusion, model.expert
    parts = {
        "siglip": _count(model.siglip),
        "siglip_projector": _count(fusion.siglip_projector),
        "gemma": _count(model.language),
        "words": model.tokens.words.numel(),
        "depth": _count(model.depth),
        "depth_projector": _count(fusion.depth_projector),
        "point_embedding": _count(fusion.point_embedding),
        "coordinates": model.tokens.coordinates.numel(),
        "expert": _count(expert and expert.stack),
    }
    parts["heads"] = _count(expert) - parts["expert"]
    names = list(parts)
    sums = {
        "paligemma": sum(parts[name] for name in names[:4]),
        "spear_vlm": sum(parts[name] for name in names[:8]),
        "total": _count(model),
    }
    return parts | sums


def _count(module):
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())
