"""The actions of `tessera models`, one file each: `run(arguments, settings) -> exit code`."""
