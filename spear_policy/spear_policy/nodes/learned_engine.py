"""From parameters to the engine `spear`. Imported only for it: torch takes seconds and memory."""

import logging

import torch

from spear_policy.inference.policy_folder import load
from spear_policy.inference.spear_engine import SpearEngine
from spear_policy.nodes.lifecycle import Refused

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def make_spear_engine(params) -> SpearEngine:
    """Load the checkpoint that the parameters name. Raises Refused with what is wrong."""
    if not params["checkpoint"]:
        raise Refused("engine 'spear' needs checkpoint, the folder of one; see make_checkpoint")
    device = _device(params["device"])
    dtype = params["weights_dtype"]
    if dtype == "auto":
        dtype = "bfloat16" if device == "cuda" else "float32"
    if params["torch_threads"]:
        torch.set_num_threads(params["torch_threads"])
    logging.captureWarnings(True)
    names = [name.strip() for name in params["absent_cameras"].split(",")]
    try:
        policy = load(params["checkpoint"], device=device, dtype=_DTYPES[dtype], progress=True)
        return SpearEngine(
            policy,
            params["robot"],
            seed=params["sampling_seed"],
            steps=params["denoising_steps"] or None,
            absent=tuple(name for name in names if name),
            compile=params["compile"],
            graphs=params["cuda_graphs"],
        )
    except (ValueError, OSError) as error:
        raise Refused(str(error)) from None


def _device(name):
    if name == "cuda" and not torch.cuda.is_available():
        raise Refused("device is cuda, but torch sees no GPU; set device to cpu or mend the driver")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name
