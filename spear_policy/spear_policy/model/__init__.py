"""The network and its maths (torch, no ROS): images, a sentence and a state in, a chunk out.

Read config.py for what there is, spear.py (over vision.py and gemma.py) for how the parts come
together, flow_matching.py (over rotation_flows.py and s3.py) for the maths of actions, and
sampling.py for how a chunk or an answer is made. tokenizer.py, prompts.py, coordinate_bins.py and
answers.py are the text; checkpoint.py, public_weights.py and public_layouts.py the weights.
"""
