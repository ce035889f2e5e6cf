"""Build description of spear_system_tests: nothing but its tests."""

from setuptools import setup

NAME = "spear_system_tests"

setup(
    name=NAME,
    version="0.1.0",
    description="System tests of SPEAR: the launched graph, faults, bags, the demo.",
    maintainer="SPEAR maintainers",
    maintainer_email="spear-maintainers@users.noreply.github.com",
    license="Apache-2.0",
    packages=[],
    py_modules=[],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/" + NAME]),
        ("share/" + NAME, ["package.xml"]),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=False,
)
