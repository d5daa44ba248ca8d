"""The delays of the one backoff stay within their bounds."""

import math

from hypothesis import given
from hypothesis import strategies as st

from saga_engine.backoff import Backoff

SECONDS = st.floats(0.001, 86_400)
BACKOFFS = st.builds(
    Backoff, initial=SECONDS, maximum=SECONDS, factor=st.floats(1, 10), jitter=st.floats(0, 1)
)
RETRIES = st.integers(0, 10**9)


def test_delays_double_up_to_the_maximum():
    backoff = Backoff(0.05, 1.0)
    assert [backoff.delay(retry) for retry in range(7)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_jitter_shortens_a_delay_by_up_to_its_share():
    backoff = Backoff(1.0, 60.0, factor=3.0, jitter=0.5)
    assert [backoff.delay(2, random) for random in (0.0, 0.5, 1.0)] == [9.0, 6.75, 4.5]


@given(BACKOFFS, RETRIES, st.floats(0, 1))
def test_a_delay_is_between_its_shortest_and_its_maximum(backoff, retry, random):
    longest = backoff.delay(retry)
    assert 0 < longest <= backoff.maximum
    assert longest * (1 - backoff.jitter) <= backoff.delay(retry, random) <= longest


@given(BACKOFFS, RETRIES)
def test_a_later_retry_does_not_wait_less(backoff, retry):
    assert backoff.delay(retry) <= backoff.delay(retry + 1)


def test_any_number_of_retries_gives_a_finite_delay():
    assert math.isfinite(Backoff(86_400, 86_400, factor=10).delay(10**12))
