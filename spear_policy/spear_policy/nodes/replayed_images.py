"""Publishes the images that an engine brings along, in place of the cameras."""

from sensor_msgs.msg import CompressedImage, Image

from spear_policy.inference.image_codec import CvBridge
from spear_policy.nodes.messages import s_to_stamp
from spear_policy.nodes.policy_inputs import IMAGE_TOPICS
from spear_policy.nodes.qos import SENSOR


class ReplayedImages:
    """Recorded frames on the camera topics, rgb8, stamped when they are due [node clock]."""

    def __init__(self, node, engine):
        """Make a publisher for each recorded camera."""
        self._node, self._engine = node, engine
        self._bridge = CvBridge(Image, CompressedImage)
        self._publishers = {
            camera: node.io.create_publisher(Image, IMAGE_TOPICS[camera], SENSOR)
            for camera in engine.camera_sizes
        }

    def close(self) -> None:
        """Publish nothing any more."""
        for publisher in self._publishers.values():
            self._node.io.destroy_publisher(publisher)
        self._publishers = {}

    def publish_due(self, now_s: float) -> None:
        """Publish what became due since the last call."""
        for stamp_s, images in self._engine.frames_due(now_s):
            for camera, image in images.items():
                message = self._bridge.cv2_to_imgmsg(image, "rgb8")
                message.header.stamp = s_to_stamp(stamp_s)
                message.header.frame_id = f"camera_{camera}_optical_frame"
                self._publishers[camera].publish(message)
