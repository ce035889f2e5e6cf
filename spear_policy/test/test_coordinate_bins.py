"""Coordinates in metres become 3D tokens and come back within their bin."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from spear_policy.model.coordinate_bins import CoordinateBins

STANDARD = CoordinateBins.normal(0.0, 1.0, norm.ppf(0.01), norm.ppf(0.99), 1024)


def entropy_bits(tokens, count):
    share = np.bincount(tokens, minlength=count) / len(tokens)
    share = share[share > 0]
    return -(share * np.log2(share)).sum()


def test_edges_are_the_golden_ones():
    edges = np.array(STANDARD.edges_m)
    assert len(edges) == 1025
    assert np.allclose(edges[[0, 1, 513]], [-2.326347874, -2.2918541198, 0.0023989239], atol=1e-10)
    assert abs(edges[512]) < 1e-12
    assert np.isclose(edges[1024], 2.326347874, atol=1e-9)


def test_golden_values_are_encoded_and_decoded():
    assert STANDARD.encode([-2, -0.5, 0, 1.2345, 2.4]).tolist() == [13, 311, 512, 921, 1023]
    assert np.isclose(STANDARD.decode(1023), 2.309101, atol=5e-7)


def test_the_error_inside_the_range_is_the_one_that_was_measured():
    # in units of sigma
    z = np.random.default_rng(0).standard_normal(400_000)
    z = z[(z > STANDARD.edges_m[0]) & (z < STANDARD.edges_m[-1])]
    error = STANDARD.decode(STANDARD.encode(z)) - z
    assert np.isclose(np.abs(error).mean(), 1.135e-3, rtol=0.01)
    assert np.isclose(np.sqrt((error**2).mean()), 1.79e-3, rtol=0.02)
    assert 1.6e-2 < np.abs(error).max() <= 1.725e-2
    widths = np.diff(STANDARD.edges_m)
    assert np.isclose(widths.min(), 0.0024, atol=5e-5) and np.isclose(
        widths.max(), 0.0345, atol=5e-5
    )


@pytest.mark.parametrize("scheme", ["normal", "empirical"])
def test_every_bin_decodes_into_itself(scheme):
    bins = CoordinateBins.fit(np.random.default_rng(1).gamma(2.0, 0.4, 20_000), 1024, scheme)
    assert bins.count == 1024 and bins.scheme == scheme
    assert np.array_equal(bins.encode(bins.decode(np.arange(1024))), np.arange(1024))
    assert np.array_equal(bins.encode(bins.edges_m[:-1]), np.arange(1024))  # lower edge included


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 300),
    st.sampled_from(["normal", "empirical"]),
    st.floats(-1e3, 1e3),
    st.floats(1e-3, 1e3),
    st.floats(-5, 5),
)
def test_a_value_comes_back_within_its_bin(seed, count, scheme, centre, spread, z):
    values = centre + spread * np.random.default_rng(seed).standard_normal(1000)
    bins = CoordinateBins.fit(values, count, scheme)
    index = bins.encode(centre + spread * z)
    assert 0 <= index < count and np.issubdtype(index.dtype, np.integer)
    low, high = bins.edges_m[index], bins.edges_m[index + 1]
    assert low < bins.decode(index) < high
    inside = np.clip(centre + spread * z, bins.edges_m[0], bins.edges_m[-1])
    assert low <= inside <= high
    assert CoordinateBins.from_dict(json.loads(json.dumps(bins.to_dict()))) == bins


def test_the_range_is_that_of_the_percentiles():
    values = np.random.default_rng(2).normal(0.7, 0.3, (1000, 8, 3))
    for scheme in ("normal", "empirical"):
        bins = CoordinateBins.fit(values, 64, scheme, low=2, high=95)
        ends = np.percentile(values, [2, 95])
        assert [bins.edges_m[0], bins.edges_m[-1]] == ends.tolist()
    # where the normal distribution rounds to 0 and 1 its inverse would be infinite
    far = CoordinateBins.normal(0.0, 1.0, -50.0, 50.0, 8)
    assert (far.edges_m[0], far.edges_m[-1]) == (-50.0, 50.0)


def test_normal_bins_use_all_tokens_equally_on_normal_data_and_empirical_ones_on_any():
    random = np.random.default_rng(3)
    normal = random.normal(0.2, 1.5, 400_000)
    skewed = np.concatenate([random.normal(0, 0.3, 300_000), random.gamma(3.0, 0.4, 100_000)])

    def bits(values, scheme):
        inside = np.sort(values)[len(values) // 100 : -len(values) // 100]
        return entropy_bits(CoordinateBins.fit(values, 1024, scheme).encode(inside), 1024)

    assert bits(normal, "normal") > 9.99
    assert bits(skewed, "empirical") > 9.999
    assert bits(skewed, "normal") < 9.97


def test_shapes_are_kept():
    points = np.zeros((2, 8, 3))
    assert STANDARD.encode(points).shape == (2, 8, 3)
    assert STANDARD.decode(STANDARD.encode(points)).shape == (2, 8, 3)
    assert int(STANDARD.encode(0.0)) == 512


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(wrong):
    with pytest.raises(ValueError, match="1 of 3 coordinates are not finite.*masked pixels"):
        STANDARD.encode([0.0, wrong, 1.0])
    with pytest.raises(ValueError, match="1 of 101 coordinates are not finite"):
        CoordinateBins.fit([wrong, *range(100)], 10)


@pytest.mark.parametrize(
    ("values", "count", "scheme", "message"),
    [
        ([], 4, "normal", "0 values are too few for 4 bins"),
        (range(99), 100, "normal", "99 values are too few for 100 bins"),
        ([1.0], 1, "empirical", "1 values are too few"),
        ([2.5] * 100, 8, "normal", "not be all the same"),
        ([2.5] * 100, 8, "empirical", "repeat too often for 8 bins"),
        ([0.0] * 90 + list(range(10)), 64, "empirical", "repeat too often for 64 bins"),
        (range(100), 0, "normal", "count is 0"),
        (range(100), 8, "uniform", "scheme of the bins is 'uniform': choose from normal"),
    ],
)
def test_values_that_give_no_bins_are_refused_in_a_sentence(values, count, scheme, message):
    with pytest.raises(ValueError, match=message):
        CoordinateBins.fit(list(values), count, scheme)


def test_percentiles_must_ascend():
    with pytest.raises(ValueError, match="must ascend within 0..100"):
        CoordinateBins.fit(np.arange(100.0), 8, low=99, high=1)


def test_bins_that_are_not_there_are_refused():
    for wrong in (-1, 1024, [0, 5000]):
        with pytest.raises(ValueError, match=r"there is no bin .*: they are 0\.\.1023"):
            STANDARD.decode(wrong)
    with pytest.raises(ValueError, match="numbered by integers"):
        STANDARD.decode(0.5)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({}, "must have exactly: scheme, edges_m"),
        ([1, 2], "must have exactly"),
        ({"scheme": "normal", "edges_m": [0, 1], "count": 1}, "must have exactly"),
        ({"scheme": "normal", "edges_m": 3}, "list of numbers"),
        ({"scheme": "normal", "edges_m": ["a", 1]}, "list of numbers"),
        ({"scheme": "normal", "edges_m": [0.0]}, "at least two edges"),
        ({"scheme": "normal", "edges_m": [0.0, 1.0, 0.5]}, "edges 1 and 2 of the bins do not"),
        ({"scheme": "normal", "edges_m": [0.0, float("nan")]}, "not finite"),
        ({"scheme": "odd", "edges_m": [0.0, 1.0]}, "choose from normal, empirical"),
    ],
)
def test_a_damaged_description_is_refused(stored, message):
    with pytest.raises(ValueError, match=message):
        CoordinateBins.from_dict(stored)
