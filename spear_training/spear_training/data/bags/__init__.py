"""A lab's own recordings: rosbag2 folders to episodes, without ROS."""
