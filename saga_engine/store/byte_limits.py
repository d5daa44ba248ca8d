"""How many bytes of rows one statement reads at most."""

UNLIMITED_BYTES = 2**62
"""A limit that no sum of journals, bodies or payloads reaches."""
