"""The lifecycle manager of a graph, for launch: the supervisor has its own."""

from spear_bringup.graph.spec import NodeSpec


def manager_spec(specs: list[NodeSpec], autostart: bool = True, **timeouts: float) -> NodeSpec:
    """The lifecycle manager that brings up the managed nodes of `specs` in their order.

    It runs on the steady clock, never on /clock: it must notice a simulation that died.

    Args:
        specs: the graph.
        autostart: bring everything up at start; otherwise ~/activate_all does.
        timeouts: parameters of config/lifecycle_manager.yaml.
    """
    managed = [spec for spec in specs if spec.managed]
    return NodeSpec(
        package="spear_bringup",
        executable="lifecycle_manager",
        name="lifecycle_manager",
        namespace=managed[0].namespace,
        parameters={
            "node_names": [spec.full_name for spec in managed],
            "deactivate_first": [spec.full_name for spec in managed if spec.name == "policy"],
            "autostart": autostart,
            **timeouts,
        },
        log_level=managed[0].log_level,
        managed=False,
    )
