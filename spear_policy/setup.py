"""Build description of spear_policy."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "spear_policy"


def shared_files():
    """List what goes to share/: the index marker, package.xml and the data folders."""
    files = [
        ("share/ament_index/resource_index/packages", ["resource/" + NAME]),
        ("share/" + NAME, ["package.xml"]),
    ]
    for folder in ("config", "params"):
        found = sorted(str(path) for path in Path(folder).glob("*.*") if path.is_file())
        if found:
            files.append(("share/" + NAME + "/" + folder, found))
    return files


setup(
    name=NAME,
    version="0.1.0",
    description="The SPEAR model, its inference engines and the node that runs them.",
    maintainer="SPEAR maintainers",
    maintainer_email="spear-maintainers@users.noreply.github.com",
    license="Apache-2.0",
    packages=find_packages(exclude=["test", "test.*"]),
    package_data={NAME: ["**/*.yaml", "**/*.json", "**/*.html"]},
    data_files=shared_files(),
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"], "robot": ["torch", "tokenizers", "safetensors"]},
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "policy_node = spear_policy.shared.programs:main",
            "spatial_query = spear_policy.shared.programs:main",
            "make_checkpoint = spear_policy.shared.programs:main",
            "spear_bench = spear_policy.shared.programs:main",
            "model_info = spear_policy.shared.programs:main",
        ],
    },
)
