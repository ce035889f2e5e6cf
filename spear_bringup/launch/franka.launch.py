"""Start a real Franka with its policy, driver and recorder; your camera drivers run beside it.

Example:
    ros2 launch spear_bringup franka.launch.py robot_host:=172.16.0.2 checkpoint:=checkpoints/mine
"""

from spear_bringup.graph import ENGINES, franka_graph
from spear_bringup.nodes.launch_actions import describe


def generate_launch_description():
    """Describe the graph for `ros2 launch`."""
    engines = [name for name, entry in ENGINES.items() if not entry.simulation_only]
    return describe(
        franka_graph,
        use_sim_time=("false", ("true", "false"), "true only when a bag plays /clock"),
        engine=("spear", engines, "which policy runs"),
        robot_host=("172.16.0.2", None, "network address of the robot"),
    )
