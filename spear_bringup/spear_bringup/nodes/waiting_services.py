"""Services that take seconds, on a thread of their own: states and chunks go on meanwhile."""

import threading
from collections.abc import Callable

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import Trigger

from spear_bringup.drivers.homing import HomingFailed
from spear_bringup.drivers.protocol import RobotFault
from spear_policy.nodes.lifecycle import SpearNode


class WaitingServices:
    """Trigger services `<node>/<name>`, one at a time.

    Args:
        node: the node that they belong to.
        works: for each name a function that returns the answer's sentence, or raises RobotFault or
            HomingFailed with the sentence of a failure.
    """

    def __init__(self, node: SpearNode, works: dict[str, Callable[[], str]]):
        self._node = Node(
            f"{node.get_name()}_services",
            namespace=node.get_namespace(),
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="waiting_services", daemon=True)
        for name, work in works.items():
            service = f"{node.get_fully_qualified_name()}/{name}"
            self._node.create_service(Trigger, service, self._answering(work))

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
        self._node.destroy_node()

    def _answering(self, work):
        def answer(request, response: Trigger.Response) -> Trigger.Response:
            try:
                response.message, response.success = work(), True
            except (RobotFault, HomingFailed) as failure:
                response.message = str(failure)
            return response

        return answer

    def _spin(self) -> None:
        executor = SingleThreadedExecutor(context=self._node.context)
        executor.add_node(self._node)
        while not self._closing.is_set() and self._node.context.ok():
            executor.spin_once(timeout_sec=0.1)
        executor.remove_node(self._node)
        executor.shutdown(timeout_sec=1.0)
