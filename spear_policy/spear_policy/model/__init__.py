"""The network and its maths (torch, no ROS): images, a sentence and a state in, a chunk out."""
