r"""Start the simulated Franka with its policy, driver and recorder.

Example:
    ros2 launch spear_bringup sim.launch.py engine:=scripted seed:=3
    ros2 launch spear_bringup sim.launch.py engine:=spear checkpoint:=checkpoints/mine
    ros2 action send_goal /run_instruction spear_msgs/action/RunInstruction \
        "{instruction: put the red cube on the plate}"
    ros2 topic pub --once -w 2 /instruction std_msgs/msg/String \
        "{data: put the red cube on the plate}"
"""

from spear_bringup.graph import ENGINES, sim_graph
from spear_bringup.nodes.launch_actions import describe


def generate_launch_description():
    """Describe the graph for `ros2 launch`."""
    return describe(
        sim_graph,
        use_sim_time=("true", ("true", "false"), "follow the /clock of the simulation"),
        engine=("scripted", ENGINES, "which policy runs"),
        seed=("0", None, "of the first scene"),
        host=("127.0.0.1", None, "loopback address that the simulated robot listens on"),
    )
