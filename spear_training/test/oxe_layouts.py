"""What the datasets of the mixture hold, as their features.json says; the tests write such files.

Names, shapes and types are those of the catalogue of TensorFlow Datasets, without the features
that nobody reads (embeddings, depth). "text", ("image", height, width), or (dtype, *shape).
"""

TEXT = "text"
FLOAT = ("float32",)


def image(height, width):
    """Return the layout of a colour picture."""
    return ("image", height, width)


def floats(*shape):
    """Return the layout of float32 numbers."""
    return ("float32", *shape)


def deltas(gripper):
    """Return the actions of Open X-Embodiment's first datasets."""
    return {
        "world_vector": floats(3),
        "rotation_delta": floats(3),
        "terminate_episode": FLOAT,
        **gripper,
    }


PATH = {"file_path": TEXT}


def converted(action, **observation):
    """Return the layout that labs used who converted their data themselves."""
    steps = {"action": floats(action), "language_instruction": TEXT, "is_last": ("bool",)}
    return {"episode_metadata": PATH, "steps": steps | {"observation": observation}}


def google(action, **observation):
    """Return the layout with the instruction among the observations."""
    observation["natural_language_instruction"] = TEXT
    return {"steps": {"action": action, "is_last": ("bool",), "observation": observation}}


_AUSTIN = {"image": image(128, 128), "wrist_image": image(128, 128)}
_BUDS = converted(7, state=floats(24), **_AUSTIN)
_ROBOSET = converted(
    8,
    **{f"image_{place}": image(240, 424) for place in ("left", "right", "top", "wrist")},
    state=floats(8),
)
_ROBOSET["episode_metadata"] = {"file_path": TEXT, "trial_id": TEXT}

LAYOUTS = {
    "austin_buds_dataset": _BUDS,
    "austin_sailor_dataset": converted(
        7,
        state=floats(8),
        state_ee=floats(16),
        state_gripper=floats(1),
        state_joint=floats(7),
        **_AUSTIN,
    ),
    "austin_sirius_dataset": converted(
        7,
        image=image(84, 84),
        wrist_image=image(84, 84),
        state=floats(8),
        state_ee=floats(16),
        state_gripper=floats(1),
        state_joint=floats(7),
    ),
    "berkeley_autolab_ur5": google(
        deltas({"gripper_closedness_action": FLOAT}),
        hand_image=image(480, 640),
        image=image(480, 640),
        robot_state=floats(15),
    ),
    "berkeley_cable_routing": google(
        deltas({}),
        image=image(128, 128),
        top_image=image(128, 128),
        wrist45_image=image(128, 128),
        wrist225_image=image(128, 128),
        robot_state=floats(7),
    ),
    "berkeley_fanuc_manipulation": converted(
        6,
        end_effector_state=floats(7),
        image=image(224, 224),
        wrist_image=image(224, 224),
        state=floats(13),
    ),
    "bridge": {
        "episode_metadata": PATH | {"has_image_0": ("bool",), "episode_id": ("int32",)},
        "steps": {
            "action": floats(7),
            "language_instruction": TEXT,
            "observation": {
                "state": floats(7),
                **{f"image_{camera}": image(256, 256) for camera in range(4)},
            },
        },
    },
    "dlr_edan_shared_control": converted(7, image=image(360, 640), state=floats(7)),
    "droid": {
        "episode_metadata": PATH | {"recording_folderpath": TEXT},
        "steps": {
            "action": ("float64", 7),
            "action_dict": {
                "cartesian_position": ("float64", 6),
                "cartesian_velocity": ("float64", 6),
                "gripper_position": ("float64", 1),
                "gripper_velocity": ("float64", 1),
                "joint_position": ("float64", 7),
                "joint_velocity": ("float64", 7),
            },
            "language_instruction": TEXT,
            "language_instruction_2": TEXT,
            "language_instruction_3": TEXT,
            "observation": {
                "cartesian_position": ("float64", 6),
                "gripper_position": ("float64", 1),
                "joint_position": ("float64", 7),
                "exterior_image_1_left": image(180, 320),
                "exterior_image_2_left": image(180, 320),
                "wrist_image_left": image(180, 320),
            },
        },
    },
    "fmb": {
        "episode_metadata": PATH | {"episode_task": TEXT},
        "steps": {
            "action": floats(7),
            "language_instruction": TEXT,
            "observation": {
                "eef_pose": floats(7),
                "joint_pos": floats(7),
                "state_gripper_pose": FLOAT,
                "object_id": ("uint8",),
                "image_side_1": image(256, 256),
                "image_side_2": image(256, 256),
                "image_wrist_1": image(256, 256),
                "image_wrist_2": image(256, 256),
            },
        },
    },
    "fractal20220817_data": google(
        deltas({"gripper_closedness_action": floats(1), "base_displacement_vector": floats(2)}),
        image=image(256, 320),
        base_pose_tool_reached=floats(7),
        gripper_closed=floats(1),
        orientation_box=floats(2, 3),
    )
    | {"aspects": {"success": ("bool",)}},
    "furniture_bench_dataset": converted(
        8, image=image(224, 224), wrist_image=image(224, 224), state=floats(35)
    ),
    "iamlab_cmu_pickup_insert": converted(
        8, image=image(360, 640), wrist_image=image(240, 320), state=floats(20)
    ),
    "kuka": google(
        deltas({"gripper_closedness_action": floats(1)}),
        **{"clip_function_input/base_pose_tool_reached": floats(7)},
        image=image(512, 640),
        gripper_closed=floats(1),
        task_id=floats(1),
    )
    | {"success": ("bool",)},
    "language_table": {
        "episode_id": TEXT,
        "steps": {
            "action": floats(2),
            "observation": {
                "effector_translation": floats(2),
                "effector_target_translation": floats(2),
                "instruction": ("int32", 512),
                "rgb": image(360, 640),
            },
        },
    },
    "nyu_franka_play_dataset": converted(
        15, image=image(128, 128), image_additional_view=image(128, 128), state=floats(13)
    ),
    "roboset_kinesthetic": _ROBOSET,
    "roboset_teleoperation": _ROBOSET,
    "roboturk": google(deltas({"gripper_closedness_action": floats(1)}), front_rgb=image(480, 640)),
    "stanford_hydra_dataset": converted(
        7, image=image(240, 320), wrist_image=image(240, 320), state=floats(27)
    ),
    "taco_play": google(
        {
            "actions": floats(7),
            "rel_actions_world": floats(7),
            "rel_actions_gripper": floats(7),
            "terminate_episode": FLOAT,
        },
        rgb_static=image(150, 200),
        rgb_gripper=image(84, 84),
        robot_obs=floats(15),
        structured_language_instruction=TEXT,
    ),
    "toto": google(deltas({"open_gripper": ("bool",)}), image=image(480, 640), state=floats(7)),
    "ucsd_kitchen_dataset": converted(8, image=image(480, 640), state=floats(21)),
    "utaustin_mutex": _BUDS,
    "viola": google(
        deltas({"gripper_closedness_action": FLOAT}),
        agentview_rgb=image(224, 224),
        eye_in_hand_rgb=image(224, 224),
        ee_states=floats(16),
        gripper_states=floats(1),
        joint_states=floats(7),
    ),
}
