"""Fixtures of the tests on a simulated Franka."""

import pytest


@pytest.fixture(scope="module")
def robot():
    """One simulated robot for a test file, at `franka_fixture.HOST`."""
    # Here and not above: most tests of this folder need neither franky nor a simulation.
    from franka_fixture import HOST
    from simulated_franka import SimulatedFranka

    with SimulatedFranka(HOST) as robot:
        yield robot
