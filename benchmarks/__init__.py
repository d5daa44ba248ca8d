"""Benchmarks on private real servers: runs of a saga, with a baseline; and events."""
