"""Benchmarks: the real system over its real interfaces. `make bench` runs all; each module says what it measures."""
