"""The quaternion pieces that are ours agree with scipy and keep their sign rules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from spear_policy.geometry import quaternions as quat

components = st.lists(st.floats(-1, 1), min_size=4, max_size=4)
unit_quaternions = (
    components.map(np.array)
    .filter(lambda q: np.linalg.norm(q) > 0.1)
    .map(lambda q: q / np.linalg.norm(q))
)
fractions = st.floats(0, 1)


@given(unit_quaternions, unit_quaternions)
def test_products_agree_with_scipy(a, b):
    ours = quat.multiply(a, b)
    theirs = (Rotation.from_quat(a) * Rotation.from_quat(b)).as_quat()
    assert np.allclose(quat.nearest_sign(theirs, ours), ours, atol=1e-12)


@given(unit_quaternions, unit_quaternions, fractions)
def test_slerp_agrees_with_scipy_and_is_unit(a, b, t):
    ours = quat.slerp(a, b, t)
    assert abs(np.linalg.norm(ours) - 1) < 1e-9
    if quat.angle(a, b) < np.pi - 1e-3:  # at half a turn the way is free
        theirs = Slerp([0, 1], Rotation.from_quat([a, b]))(t).as_quat()
        assert quat.angle(ours, theirs) < 1e-6


@given(unit_quaternions, unit_quaternions)
def test_the_angle_is_the_same_for_both_signs(a, b):
    assert np.isclose(quat.angle(a, b), quat.angle(-a, b), atol=1e-12)
    expected = (Rotation.from_quat(a).inv() * Rotation.from_quat(b)).magnitude()
    assert np.isclose(quat.angle(a, b), expected, atol=1e-7)


def test_tiny_angles_keep_their_digits():
    q = quat.from_rotation_vector([0, 0, 1e-9])
    assert np.isclose(quat.angle(q), 1e-9, rtol=1e-6)


@given(unit_quaternions)
def test_wxyz_and_xyzw_are_inverse_of_each_other(q):
    assert np.array_equal(quat.xyzw_from_wxyz(quat.wxyz_from_xyzw(q)), q)
    assert quat.wxyz_from_xyzw([1, 2, 3, 4]).tolist() == [4, 1, 2, 3]


@given(unit_quaternions)
def test_deltas_live_in_the_half_space(q):
    assert quat.half_space(q)[3] >= 0
    assert quat.angle(quat.half_space(q), q) < 1e-9


def test_absolute_orientations_keep_their_sign_through_w_equal_zero():
    tilts = np.linspace(-0.1, 0.1, 21)
    noisy = np.array([Rotation.from_euler("xy", [np.pi + t, 0.01]).as_quat() for t in tilts])
    noisy[::2] *= -1
    smooth = quat.continuous(noisy)
    assert np.all(np.sum(smooth[1:] * smooth[:-1], axis=1) > 0.9)


@pytest.mark.parametrize(
    "bad", [[0, 0, 0, 0], [0, 0, 0, 1.1], [np.nan, 0, 0, 1], [np.inf, 0, 0, 1]]
)
def test_what_is_no_unit_quaternion_is_an_error(bad):
    with pytest.raises(ValueError, match="unit quaternion"):
        quat.unit(bad)
