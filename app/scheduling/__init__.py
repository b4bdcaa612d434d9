"""Batches and admission: pure code with an injected clock (`queue`, `rate`), and the one thread that runs batches."""
