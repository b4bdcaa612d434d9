"""The commands of `tessera`, one file each: `run(arguments, settings) -> exit code`. See also `app/arguments/`."""
