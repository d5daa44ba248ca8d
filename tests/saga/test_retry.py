"""The backoff grows, has bounds, and is the same for the same seed."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from saga_engine import Retry


def test_delays_grow_by_the_factor_up_to_the_maximum():
    policy = Retry(initial=timedelta(seconds=1), maximum=timedelta(seconds=6), factor=2, jitter=0)
    delays = [policy.delay(failures, "seed").total_seconds() for failures in (1, 2, 3, 4, 5)]
    assert delays == [1, 2, 4, 6, 6]


def test_the_jitter_is_the_same_for_the_same_seed_and_differs_between_seeds():
    policy = Retry()
    assert policy.delay(3, "run/a") == policy.delay(3, "run/a")
    assert len({policy.delay(3, f"run-{number}/a") for number in range(20)}) > 15


def test_the_jitter_uses_its_whole_share():
    policy = Retry(initial=timedelta(seconds=1), jitter=0.5)
    delays = [policy.delay(1, str(number)).total_seconds() for number in range(500)]
    assert 0.5 <= min(delays) < 0.51
    assert 0.99 < max(delays) <= 1


@given(
    failures=st.integers(1, 1000),
    seed=st.text(st.characters(codec="utf-8")),
    initial=st.timedeltas(timedelta(), timedelta(days=1)),
    maximum=st.timedeltas(timedelta(days=1), timedelta(days=30)),
    factor=st.floats(1, 10),
    jitter=st.floats(0, 1),
)
def test_a_delay_is_within_its_bounds_for_every_policy(
    failures, seed, initial, maximum, factor, jitter
):
    bare = Retry(attempts=1000, initial=initial, maximum=maximum, factor=factor, jitter=0).delay(
        failures, seed
    )
    delay = Retry(
        attempts=1000, initial=initial, maximum=maximum, factor=factor, jitter=jitter
    ).delay(failures, seed)
    rounding = timedelta(microseconds=1)
    assert initial - rounding <= bare <= maximum
    assert bare * (1 - jitter) - rounding <= delay <= bare
