"""Where an installed executable is, as `ros2 run` would find it."""

from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix


def find_executable(package: str, name: str) -> Path:
    """Path of an executable of an installed package.

    Raises:
        FileNotFoundError: the package or the executable is not installed; names the mend.
    """
    try:
        prefix = get_package_prefix(package)
    except PackageNotFoundError as error:
        raise FileNotFoundError(
            f"package {package} is not installed here; source install/setup.bash"
        ) from error
    path = Path(prefix) / "lib" / package / name
    if not path.is_file():
        raise FileNotFoundError(f"{package} has no executable {name} ({path}); build it first")
    return path
