"""Runs the installed demo as a user does."""

import os
import subprocess

from graph_fixture import installed


def demo_environment(**variables):
    """The demo finds a free domain by itself; POLICY and the like of the caller do not count."""
    own = ("ROS_DOMAIN_ID", "POLICY", "TRIALS", "OUT")
    return {key: value for key, value in os.environ.items() if key not in own} | variables


def run_demo_program(*arguments, timeout_s=800.0, **variables):
    """Run the demo to its end with these arguments and environment variables."""
    return subprocess.run(
        [installed("spear_demo"), *map(str, arguments)],
        env=demo_environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
