"""Bins fitted from records equal those of all coordinates at once; their file says what of."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from question_fixture import MUG, picture, shelf

from spear_policy.model.coordinate_bins import CoordinateBins
from spear_training.annotation.stages import JobError
from spear_training.vqa.bins import BinSource, FittedBins, fit_bins

PICTURES = [shelf(number) for number in range(120)]
VALUES = np.array([p for each in PICTURES for o in each.objects for p in o.sample_m])


def test_normal_bins_from_records_equal_those_from_all_coordinates():
    fitted = fit_bins([BinSource("shelves", 1.0, iter(PICTURES))], 256)
    exact = CoordinateBins.fit(VALUES, 256)
    error = np.abs(np.subtract(fitted.bins.edges_m, exact.edges_m))
    assert error.max() < 0.05 * np.diff(exact.edges_m).min()
    assert fitted.share_clipped == pytest.approx(0.02, abs=0.002)
    assert (fitted.min_m, fitted.max_m) == (VALUES.min(), VALUES.max())


def test_empirical_bins_from_records_have_equal_shares_of_all_coordinates():
    fitted = fit_bins([BinSource("shelves", 1.0, PICTURES)], 256, "empirical")
    assert fitted.bins.scheme == "empirical"
    below = np.searchsorted(np.sort(VALUES, axis=None), fitted.bins.edges_m) / VALUES.size
    # each coordinate of a corner is there four times, and a bin of the sketch may hold two
    assert np.abs(below - np.linspace(0.01, 0.99, 257)).max() < 9 / VALUES.size


def test_the_file_holds_the_bins_and_what_they_were_fitted_on(tmp_path):
    pictures = [shelf(number) for number in range(30)] + [picture(name="nothing")]
    fitted = fit_bins([BinSource("shelves", 0.7, pictures)], 64)
    path = tmp_path / "bins.json"
    fitted.save(path)
    assert FittedBins.load(path) == fitted
    (origin,) = json.loads(path.read_text())["fitted_on"]
    values = np.array([p for each in pictures for o in each.objects for p in o.sample_m])
    assert origin["sha256"] == hashlib.sha256(values.astype("<f8").tobytes()).hexdigest()
    assert (origin["pictures"], origin["objects"], origin["coordinates"]) == (30, 90, 90 * 27)
    assert (origin["share"], origin["metric"]) == (0.7, True)
    assert list(tmp_path.iterdir()) == [path]


def test_metres_and_other_units_are_not_fitted_together():
    metres = [shelf(number) for number in range(20)]
    other = [replace(each, metric=False) for each in metres]
    sources = [BinSource("a", 1.0, metres), BinSource("b", 1.0, other)]
    with pytest.raises(JobError, match="a and b: some lengths are metres.*--mixed-units"):
        fit_bins(sources, 64)
    with pytest.raises(JobError, match="c: some lengths are metres"):
        fit_bins([BinSource("c", 1.0, metres + other)], 64)
    fitted = fit_bins(sources, 64, mixed_units=True)
    assert [each.metric for each in fitted.fitted_on] == [True, False]
    # an empty picture has no lengths, whatever its record says
    nothing = replace(picture(), metric=False)
    assert fit_bins([BinSource("d", 1.0, [*metres, nothing])], 64).fitted_on[0].metric is True


def test_too_few_coordinates_are_refused():
    with pytest.raises(JobError, match="mugs: 27 coordinates of objects are too few for 64 bins"):
        fit_bins([BinSource("mugs", 1.0, [picture(MUG)])], 64)
    with pytest.raises(JobError, match="mugs: 0 coordinates"):
        fit_bins([BinSource("mugs", 1.0, [])], 64)


def test_coordinates_that_are_all_the_same_are_refused():
    point = picture(replace(MUG, sample_m=((1.0, 1.0, 1.0),) * 99))
    with pytest.raises(JobError, match="no bins can be fitted"):
        fit_bins([BinSource("points", 1.0, [point])], 64)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "holds no bins"),
        ("[]", "holds no bins"),
        ('{"format": "other"}', "its format is 'other'"),
        ('{"format": "spear bins 1", "scheme": "normal", "edges_m": [1, 0]}', "do not ascend"),
        ('{"format": "spear bins 1", "scheme": "normal", "edges_m": [0, 1]}', "fitted_on"),
    ],
)
def test_a_file_of_bins_that_is_damaged_is_named(tmp_path, text, said):
    path = tmp_path / "bins.json"
    path.write_text(text)
    with pytest.raises(JobError, match=rf"bins.json holds no bins .*{said}|{said}"):
        FittedBins.load(path)
    with pytest.raises(JobError, match=r"none.json cannot be read"):
        FittedBins.load(tmp_path / "none.json")
