"""Normalisation goes there and back, wrong statistics are named, strays are reported."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_policy.inference.statistics import (
    Range,
    RangeReport,
    Statistics,
    denormalise,
    narrow_axes,
    normalise,
    statistics_hash,
)
from spear_policy.shared.config import ConfigError

POSITION = Range((0.2, -0.31, 0.0), (0.7, 0.42, 0.5), (0.45, 0.0, 0.2), (0.1, 0.12, 0.08))
TRANSLATION = Range((-0.1,) * 3, (0.1,) * 3, (0.0,) * 3, (0.03,) * 3)
STATISTICS = Statistics("quantile", TRANSLATION, POSITION)
metres = st.lists(st.floats(-10, 10), min_size=3, max_size=3)


@settings(deadline=None)
@given(metres, st.sampled_from(["quantile", "mean_std"]))
def test_denormalising_undoes_normalising(values, scheme):
    there = normalise([values, values], POSITION, scheme)
    assert there.shape == (2, 3)
    assert np.allclose(denormalise(there, POSITION, scheme), values, atol=1e-12)


def test_the_quantile_scheme_puts_low_at_minus_one_and_the_divisor_has_the_epsilon():
    assert np.allclose(normalise(POSITION.low, POSITION, "quantile"), -1.0, atol=1e-15)
    high = normalise(POSITION.high, POSITION, "quantile")
    assert np.allclose(
        high, 2 * np.array([0.5, 0.73, 0.5]) / (np.array([0.5, 0.73, 0.5]) + 1e-6) - 1
    )
    assert np.all(high < 1)


def test_the_mean_std_scheme_counts_deviations_from_the_mean():
    values = np.add(POSITION.mean, POSITION.std)
    assert np.allclose(normalise(values, POSITION, "mean_std"), 1.0, atol=1e-4)


def test_values_outside_the_range_are_not_clipped():
    assert np.allclose(normalise([0.3] * 3, TRANSLATION, "quantile"), 3.0, atol=1e-4)


@pytest.mark.parametrize("scheme", ["quantile", "mean_std"])
def test_an_axis_along_which_nothing_moved_is_named_and_clipped(scheme):
    narrow = Range((0.2, -0.3, 0.3), (0.7, 0.4, 0.3001), (0.4, 0.1, 0.3), (0.1, 0.1, 2e-5))
    (sentence,) = narrow_axes(Statistics(scheme, TRANSLATION, narrow))
    assert sentence.startswith("statistics.position: along z all") and "mm" in sentence
    five_cm_away = normalise([[2.0, 0, 0.35], [0.4, 0.1, 0.25]], narrow, scheme)
    assert five_cm_away[:, 2].tolist() == [1.5, -1.5]
    assert five_cm_away[0, 0] > 5  # the other axes are as they were
    assert narrow_axes(STATISTICS) == []


def test_statistics_survive_json():
    assert Statistics.from_dict(json.loads(json.dumps(STATISTICS.to_dict()))) == STATISTICS


def test_the_hash_is_sha256_of_the_canonical_json():
    text = (
        '{"position":{"high":[0.7,0.42,0.5],"low":[0.2,-0.31,0.0],"mean":[0.45,0.0,0.2],'
        '"std":[0.1,0.12,0.08]},"scheme":"quantile","translation":{"high":[0.1,0.1,0.1],'
        '"low":[-0.1,-0.1,-0.1],"mean":[0.0,0.0,0.0],"std":[0.03,0.03,0.03]}}'
    )
    assert statistics_hash(STATISTICS) == hashlib.sha256(text.encode()).hexdigest()


def test_the_hash_does_not_depend_on_how_the_numbers_were_given():
    zeros = dataclasses.replace(TRANSLATION, mean=np.zeros(3, np.float32))
    integers = dataclasses.replace(TRANSLATION, mean=(0, 0, 0))
    hashes = {statistics_hash(Statistics("quantile", each, POSITION)) for each in (zeros, integers)}
    assert hashes == {statistics_hash(STATISTICS)}


@settings(deadline=None)
@given(
    st.sampled_from(["translation", "position"]),
    st.sampled_from(["low", "high", "mean", "std"]),
    st.integers(0, 2),
)
def test_any_other_number_gives_another_hash(kind, key, axis):
    values = STATISTICS.to_dict()
    values[kind][key][axis] += 1e-9
    assert statistics_hash(Statistics.from_dict(values)) != statistics_hash(STATISTICS)


def broken(path, value):
    values = STATISTICS.to_dict()
    place = values
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["scheme"], "minmax", "statistics.scheme is 'minmax'"),
        (["position"], None, "lacks the field 'position'"),
        (["position", "low"], None, "statistics.position lacks the field 'low'"),
        (["position", "median"], [0, 0, 0], "unknown field 'median'"),
        (["position", "low"], [0, 0], "statistics.position.low is .*3 finite numbers"),
        (["position", "low"], [0, 0, "0"], r"statistics.position.low\[2\] is '0'"),
        (["position", "low"], 0.0, "statistics.position.low is 0.0: it must be a list"),
        (["position", "mean"], [0, 0, float("nan")], "statistics.position.mean is .*nan"),
        (["position", "high"], [1, 1, float("inf")], "statistics.position.high is .*inf"),
        (["position", "low"], [0.2, 0.42, 0.0], "statistics.position: on axis y, low is 0.42"),
        (["translation", "high"], [0.1, 0.1, -0.2], "statistics.translation: on axis z"),
        (["translation", "std"], [0.1, -0.1, 0.1], "statistics.translation.std"),
    ],
)
def test_wrong_statistics_are_named_in_one_sentence(path, value, words):
    with pytest.raises(ConfigError, match=words) as caught:
        Statistics.from_dict(broken(path, value))
    assert "\n" not in str(caught.value)


def test_a_deviation_of_zero_is_refused_only_where_it_divides():
    still = dataclasses.replace(TRANSLATION, std=(0.1, 0.0, 0.1))
    assert Statistics("quantile", still, POSITION)
    with pytest.raises(ConfigError, match="translation.std"):
        Statistics("mean_std", still, POSITION)


def test_another_scheme_is_refused_where_it_is_used_too():
    with pytest.raises(ConfigError, match="'minmax'"):
        normalise([0, 0, 0], POSITION, "minmax")


def test_the_report_counts_what_lies_outside_per_axis_and_says_so():
    report = RangeReport("position", POSITION)
    for k in range(100):
        report.add([0.5, 0.9 if k % 4 else 0.0, 0.1])
    assert np.allclose(report.fractions, [0, 0.75, 0], atol=0.03)
    percent = round(100 * report.fractions[1])
    assert report.sentence() == (
        f"position y: {percent} % of the last 50 values outside the training range -0.31..0.42 m"
    )


def test_only_the_last_values_count():
    report = RangeReport("position", POSITION, window=20)
    report.add(np.full((30, 3), 9.0))
    assert report.fractions.tolist() == [1, 1, 1] and report.sentence().count(";") == 2
    report.add(np.tile(POSITION.mean, (20, 1)))
    assert report.fractions.tolist() == [0, 0, 0] and report.sentence() == ""


def test_the_share_of_outliers_that_quantiles_leave_outside_raises_no_alarm():
    report = RangeReport("position", POSITION)
    for k in range(50):
        report.add([9.0, 9.0, 9.0] if k % 10 == 0 else POSITION.mean)
    assert report.fractions.tolist() == [0.1] * 3 and report.sentence() == ""


def test_a_few_values_are_not_judged():
    report = RangeReport("position", POSITION)
    report.add(np.full((9, 3), 9.0))
    assert report.sentence() == ""
    report.add([9.0, 9.0, 9.0])
    assert report.sentence().startswith("position x: 100 % of the last 10 values")


@pytest.mark.parametrize("hostile", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_counts_as_outside(hostile):
    report = RangeReport("position", POSITION)
    report.add([hostile] * 3)
    assert report.fractions.tolist() == [1, 1, 1]


def test_the_edges_of_the_range_are_inside():
    report = RangeReport("position", POSITION)
    report.add([POSITION.low, POSITION.high])
    assert report.fractions.tolist() == [0, 0, 0]
