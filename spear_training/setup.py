"""Build description of spear_training."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "spear_training"


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
    extras_require={"test": ["pytest"]},
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "annotate = spear_training.annotation.annotate:main",
            "bench_data = spear_training.data.store.bench:main",
            "import_episodes = spear_training.data.import_episodes:main",
            "spear_stats = spear_training.data.stats:main",
            "store_report = spear_training.data.report:main",
            "replay_plot = spear_training.data.replay_plot:main",
            "make_lookup = spear_training.data.store.reader:main",
            "inspect_rlds = spear_training.data.rlds:main",
            "inspect_row = spear_training.data.oxe.inspect_row:main",
        ],
    },
)
