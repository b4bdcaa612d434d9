"""The subcommands of `tessera`, one file each: `add_arguments(parser)` and `run(arguments) -> exit code`."""
