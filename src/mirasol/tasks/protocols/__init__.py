"""Protocols of the benchmarks."""
