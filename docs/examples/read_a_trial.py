"""A recorded trial as arrays: how far the arm moved, and how old the pictures behind it were.

python3 docs/examples/read_a_trial.py BAG_FOLDER
"""

import sys

import numpy as np

from spear_bringup.trials.bag_reader import cameras, frames, read_trial


def main(folder):
    trial = read_trial(folder)
    way_m = np.linalg.norm(np.diff(trial.states.measured[:, :3], axis=0), axis=1).sum()
    print(f"{trial.end_s - trial.start_s:.1f} s, the gripper moved {way_m:.2f} m")
    sent = trial.commands.sent
    age_s = trial.commands.observation_ages_s[sent]
    if len(age_s):
        print(f"{sent.sum()} commands, camera to command p99 {np.quantile(age_s, 0.99):.3f} s")
    for camera in cameras(folder):
        stamp_s, picture = next(frames(folder, camera))
        print(f"{camera}: first frame at {stamp_s - trial.start_s:.2f} s, {picture.shape}")


if __name__ == "__main__":
    main(*sys.argv[1:])
