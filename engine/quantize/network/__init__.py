"""The float network as the quantiser sees it, and running its nodes."""
