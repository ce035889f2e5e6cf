"""Weights that others have published, one function for each; each fills its part of a model.

    model = build(spear1())
    load_paligemma(model, paligemma_folder)
    load_moge(model, "model.pt")

A future SPEAR-1 release is one more table in layouts.py.
"""

from spear_policy.model.checkpoints.filling import Filled
from spear_policy.model.checkpoints.moge import load_moge
from spear_policy.model.checkpoints.paligemma import load_paligemma
from spear_policy.model.checkpoints.pi0 import load_pi0_expert

__all__ = ["Filled", "load_moge", "load_paligemma", "load_pi0_expert"]
