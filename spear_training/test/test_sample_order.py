"""The order of samples: exact shares, the same for every world size, nothing but the step."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_training.data.mixture import KeyedPermutation, MixtureOrder

# The weights of the paper's Table 4, and small sizes.
WEIGHTS = [0.5, 2, 0.5, 1, 0.1, 1, 18, 0.1, 35, 1.5, 12, 1.5, 0.3, 4, 1.5, 0.3, 2, 5, 3, 3, 2, 1.5]
WEIGHTS += [0.2, 3, 1]
SIZES = [7 + 13 * i for i in range(len(WEIGHTS))]


@settings(deadline=None)
@given(count=st.integers(1, 5000), key=st.lists(st.integers(0, 2**40), min_size=1, max_size=3))
def test_a_permutation_has_every_thing_once(count, key):
    found = KeyedPermutation(count, key)(np.arange(count))
    assert np.array_equal(np.sort(found), np.arange(count))


def test_a_permutation_of_45_million_costs_nothing_but_its_places():
    places = np.random.default_rng(0).integers(0, 45_000_000, 1000)
    permutation = KeyedPermutation(45_000_000, [1])
    assert len(set(permutation(places))) == len(set(places))
    assert permutation(places[7]) == permutation(places)[7]


def test_neighbours_are_scattered_and_keys_differ():
    count = 100_000
    orders = [KeyedPermutation(count, [key])(np.arange(count)) for key in range(3)]
    for order in orders:
        assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
        assert abs(np.corrcoef(order, np.arange(count))[0, 1]) < 0.02
    assert (orders[0] == orders[1]).mean() < 1e-3


@pytest.mark.parametrize("place", [-1, 10])
def test_a_place_outside_is_refused(place):
    with pytest.raises(ValueError, match="places must be 0..9"):
        KeyedPermutation(10, [0])([place])


def test_every_block_holds_the_shares_exactly():
    order = MixtureOrder(WEIGHTS, SIZES, seed=3)
    assert order.shares == pytest.approx(np.array(WEIGHTS) / 100, abs=1e-12)
    for block in (0, 1, 12345):
        drawn = order.draw(block * order.block, order.block)
        assert np.array_equal(np.bincount(drawn.dataset), order.counts)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8))
@settings(deadline=None)
def test_any_weights_are_kept_within_a_hundred_thousandth(weights):
    order = MixtureOrder(weights, [5] * len(weights), seed=0)
    wanted = np.array(weights) / np.sum(weights)
    assert np.abs(order.shares - wanted).max() <= len(weights) * 1e-5
    assert (order.counts >= 1).all()


def test_each_pass_over_a_dataset_has_every_sample_once_in_another_order():
    order = MixtureOrder([3, 1], [50, 20], seed=1)
    drawn = order.draw(0, 4 * 200)
    for dataset, size in enumerate(order.sizes):
        places = drawn.place[drawn.dataset == dataset]
        passes = places[: len(places) // size * size].reshape(-1, size)
        assert len(passes) >= 10
        assert all(np.array_equal(np.sort(row), np.arange(size)) for row in passes)
        assert len({tuple(row) for row in passes}) == len(passes)


@settings(deadline=None, max_examples=60)
@given(first=st.integers(0, 10**7), count=st.integers(0, 300), split=st.floats(0, 1))
def test_samples_do_not_depend_on_how_they_are_asked_for(first, count, split):
    order = MixtureOrder(WEIGHTS, SIZES, seed=5)
    whole = order.draw(first, count)
    middle = int(split * count)
    parts = [order.draw(first, middle), order.draw(first + middle, count - middle)]
    for name in ("dataset", "place", "turn"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert np.array_equal(getattr(whole, name), joined)


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_a_batch_is_the_same_for_every_world_size(ranks):
    order = MixtureOrder(WEIGHTS, SIZES, seed=5)
    whole = order.batch(17, 64)
    parts = [order.batch(17, 64, rank, ranks) for rank in range(ranks)]
    assert np.array_equal(np.concatenate([part.place for part in parts]), whole.place)
    assert np.array_equal(np.concatenate([part.dataset for part in parts]), whole.dataset)


def test_a_restarted_process_goes_on_where_the_first_one_was():
    before = MixtureOrder(WEIGHTS, SIZES, seed=9)
    history = [before.batch(step, 32) for step in range(40)]
    after = pickle.loads(pickle.dumps(MixtureOrder(WEIGHTS, SIZES, seed=9)))
    for step in (39, 25, 26):
        assert np.array_equal(after.batch(step, 32).place, history[step].place)
    other = MixtureOrder(WEIGHTS, SIZES, seed=10)
    assert not np.array_equal(other.batch(0, 32).place, history[0].place)


@pytest.mark.parametrize(
    ("weights", "sizes", "text"),
    [
        ([1, 2], [3], "need as many weights"),
        ([], [], "need as many weights"),
        ([1, 0], [3, 3], "must be positive"),
        ([1, np.nan], [3, 3], "must be positive"),
        ([1, 1], [3, 0], "dataset 1 is empty"),
    ],
)
def test_an_impossible_mixture_is_refused(weights, sizes, text):
    with pytest.raises(ValueError, match=text):
        MixtureOrder(weights, sizes, 0)


def test_a_batch_that_does_not_divide_is_refused():
    order = MixtureOrder([1], [10], 0)
    with pytest.raises(ValueError, match="cannot be divided evenly among 3"):
        order.batch(0, 10, 0, 3)
    with pytest.raises(ValueError, match="no rank 2 of 2"):
        order.batch(0, 10, 2, 2)
