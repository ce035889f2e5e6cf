"""Position tables are resampled by each encoder's own rule."""

import numpy as np
import pytest
import torch

from spear_policy.model.vision import PositionTable, resample_by_offset, resample_to_size


def cubic_weights(fraction):
    """Keys' cubic convolution with a = -0.75, for the four neighbours of a sample."""
    a = -0.75
    distances = np.array([1 + fraction, fraction, 1 - fraction, 2 - fraction])
    near = ((a + 2) * distances - (a + 3)) * distances**2 + 1
    far = ((a * distances - 5 * a) * distances + 8 * a) * distances - 4 * a
    return np.where(distances <= 1, near, far)


def resampling_matrix(side, count, factor):
    """One axis: output sample i lies at (i + 0.5) / factor - 0.5; borders repeat."""
    matrix = np.zeros((count, side))
    for i in range(count):
        x = (i + 0.5) / factor - 0.5
        first = int(np.floor(x))
        for offset, weight in zip(range(-1, 3), cubic_weights(x - first), strict=True):
            matrix[i, np.clip(first + offset, 0, side - 1)] += weight
    return matrix


def resampled(table, side, rows, columns, row_factor, column_factor):
    """Both axes, in fp64 numpy."""
    square = table.double().numpy().reshape(side, side, -1)
    down = resampling_matrix(side, rows, row_factor)
    across = resampling_matrix(side, columns, column_factor)
    return np.einsum("ri,cj,ijw->rcw", down, across, square).reshape(rows * columns, -1)


@pytest.fixture
def table():
    return torch.randn(37 * 37, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("rows", "columns"), [(15, 20), (8, 8), (45, 60)])
def test_moge_resamples_by_a_factor_with_an_offset_of_a_tenth_of_a_cell(table, rows, columns):
    ours = resample_by_offset(table, rows, columns, 0.1).numpy()
    expected = resampled(table, 37, rows, columns, (rows + 0.1) / 37, (columns + 0.1) / 37)
    assert ours.shape == (rows * columns, 6)
    np.testing.assert_allclose(ours, expected, atol=2e-5)
    by_size = resampled(table, 37, rows, columns, rows / 37, columns / 37)
    assert np.abs(ours - by_size).max() > 0.05  # the offset is no rounding matter


@pytest.mark.parametrize(("rows", "columns"), [(15, 20), (8, 8)])
def test_siglip_resamples_to_the_size(rows, columns):
    table = torch.randn(16 * 16, 6, generator=torch.Generator().manual_seed(1))
    ours = resample_to_size(table, rows, columns).numpy()
    expected = resampled(table, 16, rows, columns, rows / 16, columns / 16)
    np.testing.assert_allclose(ours, expected, atol=2e-5)
    assert not np.allclose(ours, resample_to_size(table, rows, columns, "bilinear"), atol=0.05)


def test_a_grid_of_the_tables_own_size_stays_as_it_is(table):
    assert torch.equal(resample_by_offset(table, 37, 37, 0.1), table)
    torch.testing.assert_close(resample_to_size(table, 37, 37), table, atol=1e-6, rtol=0)


def test_a_kept_resampling_follows_a_change_of_the_table(table):
    module = PositionTable(37, 6, lambda *grid: resample_by_offset(*grid, 0.1))
    with torch.no_grad():
        module.table.copy_(table)
        before = module(8, 8)
        assert module(8, 8) is before
        module.table.mul_(2.0)
        torch.testing.assert_close(module(8, 8), 2.0 * before)
        module.table = torch.nn.Parameter(table * 3.0)
        torch.testing.assert_close(module(8, 8), 3.0 * before)


def test_the_table_learns_through_the_resampling():
    module = PositionTable(4, 2, resample_to_size)
    torch.nn.init.ones_(module.table)
    module(3, 5).sum().backward()
    assert module.table.grad.abs().min() > 0


def test_a_table_that_is_not_square_is_named():
    with pytest.raises(ValueError, match="7 rows is not square"):
        resample_to_size(torch.zeros(7, 2), 2, 2)
