"""MoGe's image encoder from its model.pt: a dict of `model_config` and `model`.

Version 1 has the encoder under `backbone`, version 2 under `encoder.backbone`. Their decoders
make point maps, which the model does not need.
"""

from pathlib import Path

import torch
from torch import Tensor

from spear_policy.model.checkpoints.filling import Filled, fill, refuse_unknown
from spear_policy.model.checkpoints.layouts import moge
from spear_policy.model.checkpoints.tensor_files import CheckpointError
from spear_policy.model.spear import SpearModel

DECODER_V1 = ("head.", "image_mean", "image_std")
DECODER_V2 = (
    "encoder.output_projections.",
    "encoder.image_mean",
    "encoder.image_std",
    "neck.",
    "points_head.",
    "mask_head.",
    "normal_head.",
    "scale_head.",
)
# What the encoders' code takes when a file does not say it (facts/model.md 0, row 3).
OUTPUTS_V1, OUTPUTS_V2 = 4, (5, 11, 17, 23)


def load_moge(model: SpearModel, path: str | Path, *, progress: bool | None = None) -> Filled:
    """Fill the depth encoder; its projector stays as it is.

    Args:
        model: with values and with a depth encoder.
        path: model.pt; only tensors and plain values are unpickled, nothing in it is executed.
        progress: draw a bar on stderr, if that is a terminal.

    Raises:
        CheckpointError: the file is missing, damaged or not MoGe's, its sizes or output layers
            are not the configuration's, or a tensor is missing, unknown or not finite; names the
            key. The model is as it was.
        ValueError: the model has no depth encoder or no values.
    """
    path = Path(path)
    if model.depth is None:
        raise ValueError(f"{model.config.name} has no depth encoder for MoGe's weights")
    tensors, settings = _read(path)
    second = any(key.startswith("encoder.backbone.") for key in tensors)
    _check_outputs(settings, second, path, model.config.depth)
    layout = moge(model.config, "encoder.backbone" if second else "backbone")
    decoder = DECODER_V2 if second else DECODER_V1
    ignored = tuple(key for key in tensors if key.startswith(decoder))
    refuse_unknown(tensors, layout, ignored, path)
    fill(model, layout, tensors, path, progress=progress)
    return Filled(tuple(layout), ignored=ignored)


def _read(path):
    try:
        document = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path} ({error.strerror or error}): give MoGe's model.pt"
        ) from None
    except Exception as error:  # a damaged or hostile pickle may raise anything
        first = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path} is not a whole file of tensors ({first}): get MoGe's model.pt again"
        ) from None
    document = document if isinstance(document, dict) else {}
    tensors, settings = document.get("model"), document.get("model_config")
    named = isinstance(tensors, dict) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in tensors.items()
    )
    if not named or not isinstance(settings, dict):
        raise CheckpointError(
            f"{path} has no 'model' of named tensors with its 'model_config': give MoGe's model.pt"
        )
    return tensors, settings


def _check_outputs(settings, second, path, depth):
    """Compare the layers that its decoder was trained on with those that the model reads."""
    where, default = "model_config.intermediate_layers", OUTPUTS_V1
    if second:
        where, default = "model_config.encoder.intermediate_layers", OUTPUTS_V2
        settings = settings.get("encoder")
    found = settings.get("intermediate_layers", default) if isinstance(settings, dict) else default
    layers = list(range(depth.layers))[-found:] if isinstance(found, int) else found
    if layers != list(depth.output_layers) and layers != depth.output_layers:
        raise CheckpointError(
            f"{path}: {where} is {found}, so the model must read the layers {layers}, not "
            f"{list(depth.output_layers)}: set depth.output_layers in its configuration"
        )
