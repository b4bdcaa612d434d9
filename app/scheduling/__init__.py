"""Who runs when: pure decisions with an injected clock (`queue`, `admission`), and the thread that acts on them."""
