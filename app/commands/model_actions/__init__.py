"""The actions of `tessera models`, one file each."""
