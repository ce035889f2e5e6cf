"""A ROS node with a context and a thread of its own, for programs that talk to a graph."""

import threading
from collections.abc import Callable

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions


class SpunNode:
    """`node` in the given ROS domain, spun until `close`.

    Args:
        name: of the node.
        domain_id: ROS domain.
        say: takes a sentence when a callback failed; the node lives on.
    """

    def __init__(self, name: str, domain_id: int, say: Callable[[str], None] = print):
        self.context = Context()
        rclpy.init(
            args=[],
            context=self.context,
            domain_id=domain_id,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        self.node = Node(name, context=self.context, enable_rosout=False)
        self._say = say
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._spin, name=name, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._ended.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.1)
            except Exception as error:  # one bad callback must not silence the others
                self._say(f"callback failed: {type(error).__name__}: {error}")

    def close(self) -> None:
        """End the thread, the node and the context."""
        self._ended.set()
        self._thread.join(timeout=10.0)
        self._executor.shutdown(timeout_sec=1.0)
        for action in list(self.node.waitables):  # rclpy does not destroy these with their node
            action.destroy()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
        self.context.destroy()  # or its shared memory would stay mapped here
