"""The latched topic `instruction`: heard, and spoken on for goals, so that bags have every one."""

from std_msgs.msg import String

from spear_policy.nodes.qos import LATCHED


class InstructionTopic:
    """Tells the instructions of others from the echo of its own."""

    def __init__(self, node, on_instruction):
        """Call `on_instruction(text)` on the data plane for each instruction of somebody else.

        Publisher and subscription end together: what an earlier one latched must not come back.
        """
        self._node, self._on_instruction = node, on_instruction
        self._echoes: list[str] = []
        self._publisher = node.io.create_publisher(String, "instruction", LATCHED)
        self._subscription = node.io.create_subscription(
            String, "instruction", self._heard, LATCHED
        )

    def close(self) -> None:
        """Hear and say nothing any more."""
        self._node.io.destroy_subscription(self._subscription)
        self._node.io.destroy_publisher(self._publisher)

    def say(self, text: str) -> None:
        """Publish an instruction that came through another door."""
        self._echoes.append(text)
        self._publisher.publish(String(data=text))

    def _heard(self, message: String) -> None:
        text = message.data
        if text not in self._echoes:
            self._on_instruction(text)
            return
        # The topic keeps the last message only, so earlier echoes may never be heard.
        del self._echoes[: self._echoes.index(text) + 1]
