"""Build description of spear_training."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "spear_training"
TRAINING = [
    "torch",
    "tokenizers",
    "pyarrow",
    "protobuf",
    "google-crc32c",
    "rosbags",
    "lz4",
    "zstandard",
    "av",
]
ANNOTATION = [
    "pillow",
    "pi-heif",
    "pycocotools",
    "transformers",
    "google-genai",
    "ray[data]",
    "lzstring",
    "mujoco",
]


def shared_files():
    """List what goes to share/: the index marker, package.xml and the data folders."""
    files = [
        ("share/ament_index/resource_index/packages", ["resource/" + NAME]),
        ("share/" + NAME, ["package.xml"]),
    ]
    for folder in ("config",):
        found = sorted(str(path) for path in Path(folder).glob("*.*") if path.is_file())
        if found:
            files.append(("share/" + NAME + "/" + folder, found))
    return files


setup(
    name=NAME,
    version="0.1.0",
    description="Both training stages of SPEAR: annotation, data, recipes, training, evaluation.",
    maintainer="SPEAR maintainers",
    maintainer_email="spear-maintainers@users.noreply.github.com",
    license="Apache-2.0",
    packages=find_packages(exclude=["test", "test.*"]),
    package_data={NAME: ["**/*.yaml", "**/*.json", "**/*.txt", "**/*.html"]},
    data_files=shared_files(),
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"], "training": TRAINING, "annotation": TRAINING + ANNOTATION},
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "annotate = spear_policy.shared.programs:main",
            "bench_data = spear_policy.shared.programs:main",
            "import_episodes = spear_policy.shared.programs:main",
            "spear_stats = spear_policy.shared.programs:main",
            "store_report = spear_policy.shared.programs:main",
            "replay_plot = spear_policy.shared.programs:main",
            "make_lookup = spear_policy.shared.programs:main",
            "inspect_rlds = spear_policy.shared.programs:main",
            "inspect_row = spear_policy.shared.programs:main",
            "train = spear_policy.shared.programs:main",
            "evaluate = spear_policy.shared.programs:main",
        ],
    },
)
