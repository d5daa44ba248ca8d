"""
A fuzzer with a time budget: `FUZZ_SECONDS` for each test, by default 5.

Each test prints its random seed; `FUZZ_SEED` repeats a failure. `make fuzz` has a long budget.
"""

import os
import secrets
from time import monotonic

from hypothesis import HealthCheck, given, seed, settings

FUZZ_SECONDS = float(os.environ.get("FUZZ_SECONDS", "5"))
SEED = os.environ.get("FUZZ_SEED", "")

EXAMPLES = 200
"""Examples of one seed. A repetition runs only these, so it is short."""


def fuzz(check, *strategies):
    """Call `check` with examples of the strategies until the time budget is used."""
    until = monotonic() + FUZZ_SECONDS
    bounded = settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    while True:
        number = int(SEED) if SEED else secrets.randbits(32)
        print(f"FUZZ_SEED={number}")  # noqa: T201 - pytest shows it when this fails
        seed(number)(bounded(given(*strategies)(check)))()
        if SEED or monotonic() > until:
            return
