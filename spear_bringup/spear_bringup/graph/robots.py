"""The graphs of SPEAR: which nodes run, with what, in which order."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory

from spear_bringup.graph.spec import NodeSpec

ENGINES = ("spear", "scripted", "replay")


def sim_graph(
    engine: str = "scripted",
    record: bool = True,
    namespace: str = "",
    seed: int = 0,
    episode_file: Path | str | None = None,
    checkpoint: Path | str | None = None,
    host: str = "127.0.0.1",
    out_dir: Path | str = "out/trials",
    use_sim_time: bool = True,
    params_file: Path | str | None = None,
    log_level: str = "info",
) -> list[NodeSpec]:
    """The simulated Franka: the world stands behind the robot's own protocol, the rest is real.

    Args:
        engine: "scripted", "replay" or "spear".
        record: run the trial recorder too.
        namespace: of all nodes; "" for none.
        seed: of the first scene.
        episode_file: what engine "replay" repeats.
        checkpoint: folder of engine "spear"; None leaves it to your `params_file`.
        host: loopback address that the simulated robot listens on.
        out_dir: the recorder's folder.
        use_sim_time: False runs the other nodes on system time (to try what then breaks).
        params_file: a ROS parameter file of yours; it wins over config/sim_overrides.yaml.
        log_level: of every node.

    Raises:
        ValueError: unknown engine, "replay" without an episode file, or either of the two files
            with an engine that does not read it.
    """
    world = NodeSpec(
        package="spear_bringup",
        executable="sim_world",
        name="sim_world",
        namespace=namespace,
        params_files=_files("sim_overrides.yaml", params_file),
        # A replay brings its own images; two publishers of one camera would mix.
        parameters={"host": host, "seed": seed, "cameras": engine != "replay"},
        log_level=log_level,
    )
    others = _robot_nodes(
        engine,
        record,
        namespace,
        episode_file,
        checkpoint,
        host,
        out_dir,
        params_file,
        log_level,
        overrides="sim_overrides.yaml",
        use_sim_time=use_sim_time,
    )
    return [world, *others]


def franka_graph(
    robot_host: str,
    engine: str = "spear",
    record: bool = True,
    namespace: str = "",
    episode_file: Path | str | None = None,
    checkpoint: Path | str | None = None,
    out_dir: Path | str = "out/trials",
    use_sim_time: bool = False,
    params_file: Path | str | None = None,
    log_level: str = "info",
) -> list[NodeSpec]:
    """A real Franka; your camera drivers publish external/image_raw and wrist/image_raw.

    Args are those of `sim_graph`; `robot_host` is the robot's network address.

    Raises:
        ValueError: as `sim_graph`; also for engine "scripted", which reads ground truth.
    """
    if engine == "scripted":
        raise ValueError(
            "engine scripted reads ground truth from a simulation; use spear or replay"
        )
    return _robot_nodes(
        engine,
        record,
        namespace,
        episode_file,
        checkpoint,
        robot_host,
        out_dir,
        params_file,
        log_level,
        overrides="franka_overrides.yaml",
        use_sim_time=use_sim_time,
    )


def _robot_nodes(
    engine,
    record,
    namespace,
    episode_file,
    checkpoint,
    robot_host,
    out_dir,
    params_file,
    log_level,
    *,
    overrides,
    use_sim_time,
) -> list[NodeSpec]:
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; it must be one of {', '.join(ENGINES)}")
    if (engine == "replay") != bool(episode_file):
        raise ValueError(
            "engine replay needs episode_file, the recording to repeat; other engines take none"
        )
    if checkpoint and engine != "spear":
        raise ValueError(f"checkpoint is for engine spear; engine {engine} takes none")
    common = {
        "namespace": namespace,
        "params_files": _files(overrides, params_file),
        "log_level": log_level,
    }
    driver = NodeSpec(
        package="spear_bringup",
        executable="franka_driver",
        name="franka_driver",
        parameters={"robot_host": robot_host, "use_sim_time": use_sim_time},
        **common,
    )
    recorder = NodeSpec(
        package="spear_bringup",
        executable="trial_recorder",
        name="trial_recorder",
        parameters={"directory": Path(out_dir).absolute(), "use_sim_time": use_sim_time},
        **common,
    )
    answers = {"engine": engine, "use_sim_time": use_sim_time}
    if episode_file:
        answers["episode_file"] = Path(episode_file).absolute()
    if checkpoint:
        answers["checkpoint"] = Path(checkpoint).absolute()
    policy = NodeSpec(
        package="spear_policy",
        executable="policy_node",
        name="policy",
        parameters=answers,
        **common,
    )
    # The policy comes last: only then is there somebody to move the robot and to be recorded.
    return [driver, *([recorder] if record else []), policy]


def _files(own: str, yours: Path | str | None) -> tuple[Path, ...]:
    share = Path(get_package_share_directory("spear_bringup"))
    return (share / "config" / own, *([Path(yours).absolute()] if yours else []))
