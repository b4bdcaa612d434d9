"""Our own engine: a lowered graph becomes a plan, the plan a program of the C core."""
