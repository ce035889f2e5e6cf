"""The subcommands of `annotate`, one module each with `add_arguments` and `run`."""
