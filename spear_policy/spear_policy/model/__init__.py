"""The network and its maths (torch, no ROS): images, a sentence and a state in, a chunk out.

Read config.py and presets.py for what there is, spear.py for how the parts come together,
s3.py and flow/ for the maths of actions, sampling.py and generation.py for how it is used.
"""
