"""Benchmarks: place-order runs on private real servers, and a baseline without the engine."""
