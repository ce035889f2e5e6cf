"""What the tests of public checkpoints ask of every loader."""

import pytest
import torch

from spear_policy.model.checkpoints.tensor_files import CheckpointError


def copies(model):
    return {name: values.detach().clone() for name, values in model.named_parameters()}


def changed(model, before):
    return {name for name, values in model.named_parameters() if not values.equal(before[name])}


def refused(load, model, path, *parts):
    """The refusal names these parts in one sentence, and the model is as it was."""
    before = copies(model)
    with pytest.raises(CheckpointError) as found:
        load(model, path)
    assert "\n" not in str(found.value)
    for part in parts:
        assert str(part) in str(found.value)
    assert not changed(model, before)


def scrambled(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.15, generator=generator)
    return module.eval()
