"""
How hard property tests try: `quick` (`make quick`), `default`, `ci` (chosen by CI=1) and `long`.

HYPOTHESIS_PROFILE=long pytest tests/saga
"""

import os

from hypothesis import settings

settings.register_profile("quick", deadline=None, max_examples=10, stateful_step_count=20)
settings.register_profile("default", deadline=None, max_examples=100, stateful_step_count=40)
settings.register_profile(
    "ci", deadline=None, max_examples=300, stateful_step_count=50, derandomize=True, print_blob=True
)
settings.register_profile("long", deadline=None, max_examples=20_000, stateful_step_count=80)
if chosen := os.environ.get("HYPOTHESIS_PROFILE"):
    settings.load_profile(chosen)
