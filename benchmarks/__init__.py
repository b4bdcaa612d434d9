"""Benchmarks: paired, interleaved, outputs checked. Each prints a table; none is part of the test suite."""
