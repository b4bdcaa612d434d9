"""The same job as a service of each peer. These run in the peers' own environments: pipeline.py imports no engine."""
