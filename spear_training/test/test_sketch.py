"""Sketches: quantiles within a known error, exact sums, the same in any order."""

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_training.data.statistics.sketch import (
    RELATIVE_ERROR,
    Sketch,
    pooled_mean_std,
    pooled_quantile,
    pooled_quantiles,
)

VALUES = st.lists(st.floats(-50, 50), min_size=1, max_size=60)


def sketch_of(*parts):
    """Return a sketch of several lists of values."""
    sketch = Sketch()
    for part in parts:
        sketch.add(part)
    return sketch


def nearest_rank(values, share):
    """Return the smallest value that a share of all values does not exceed."""
    ordered = np.sort(values)
    return ordered[max(0, int(np.ceil(share * len(values) - 1e-9)) - 1)]


@settings(deadline=None)
@given(VALUES, st.floats(0, 1))
def test_a_quantile_is_within_its_error(values, share):
    exact = nearest_rank(values, share)
    found = sketch_of(values).quantile(share)
    assert found == pytest.approx(exact, rel=2.02 * RELATIVE_ERROR, abs=2e-6)


def test_quantiles_rise_and_end_at_the_ends():
    values = np.random.default_rng(0).normal(0.4, 0.3, 5000)
    found = pooled_quantiles([sketch_of(values)], [1.0], np.linspace(0, 1, 2049))
    assert (np.diff(found) > 0).all()
    assert found[0] == pytest.approx(values.min(), rel=1e-3)
    assert found[-1] == values.max()


@settings(deadline=None)
@given(VALUES)
def test_mean_and_deviation_are_those_of_the_values(values):
    sketch = sketch_of(values)
    assert sketch.count == len(values)
    assert sketch.mean == pytest.approx(np.mean(values), abs=1e-6)
    assert sketch.std == pytest.approx(np.std(values), abs=2e-6)
    assert (sketch.low, sketch.high) == (min(values), max(values))


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_parts_come_to_the_same_in_any_order_and_grouping(parts, chance: random.Random):
    whole = sketch_of(np.concatenate(parts))
    chance.shuffle(parts)
    merged = Sketch()
    for part in parts:
        merged.merge(sketch_of(part))
    assert json.dumps(merged.to_dict()) == json.dumps(whole.to_dict())


@given(VALUES)
@settings(deadline=None)
def test_a_sketch_comes_back_from_json(values):
    sketch = sketch_of(values)
    again = Sketch.from_dict(json.loads(json.dumps(sketch.to_dict())))
    assert again.to_dict() == sketch.to_dict()
    assert again.quantile(0.3) == sketch.quantile(0.3)
    assert Sketch.from_dict(Sketch().to_dict()).count == 0


def test_sums_stay_exact_where_64_bits_overflow():
    sketch = Sketch()
    for _ in range(50):
        sketch.add(np.full(100_000, 9000.0))
    assert sketch.mean == 9000.0 and sketch.std == 0.0


def test_a_large_dataset_does_not_drown_a_small_one_with_the_same_share():
    large, small = sketch_of(np.full(100_000, 1.0)), sketch_of(np.full(10, 5.0))
    assert pooled_quantile([large, small], [1, 1], 0.49) == pytest.approx(1.0, rel=1e-3)
    assert pooled_quantile([large, small], [1, 1], 0.51) == pytest.approx(5.0, rel=1e-3)
    assert pooled_mean_std([large, small], [1, 1]) == pytest.approx((3.0, 2.0))
    assert pooled_mean_std([large, small], [3, 1])[0] == pytest.approx(2.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_and_counts_nothing(value):
    sketch = sketch_of([1.0])
    with pytest.raises(ValueError, match="not finite"):
        sketch.add([0.0, value])
    assert sketch.count == 1


def test_nothing_has_no_quantile():
    with pytest.raises(ValueError, match="no values"):
        Sketch().quantile(0.5)
    with pytest.raises(ValueError, match="0..1"):
        sketch_of([1]).quantile(1.5)


@pytest.mark.parametrize(
    "change", [{"bins": {"99999": 1}}, {"bins": None}, {"total_millionths": None}]
)
def test_what_is_no_sketch_is_refused(change):
    with pytest.raises(ValueError, match="no sketch|does not exist"):
        Sketch.from_dict(sketch_of([1.0]).to_dict() | change)
