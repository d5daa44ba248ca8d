"""Repeated occurrences are suppressed within an interval, and counted."""

from saga_engine.telemetry.throttle import MAX_KEYS, Throttle


class ManualClock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_occurrence_of_a_kind_is_reported_per_interval():
    clock = ManualClock()
    throttle = Throttle(60.0, clock=clock)

    assert [throttle.record("a"), throttle.record("a"), throttle.record("a")] == [0, None, None]
    clock.now = 60.0
    assert throttle.record("a") == 2


def test_a_burst_is_reported_before_occurrences_are_suppressed():
    throttle = Throttle(60.0, burst=3, clock=ManualClock())

    assert [throttle.record("a") for _ in range(5)] == [0, 0, 0, None, None]


def test_kinds_are_counted_separately():
    throttle = Throttle(60.0, clock=ManualClock())

    assert [throttle.record("a", 1), throttle.record("a", 2), throttle.record("a", 1)] == [
        0,
        0,
        None,
    ]


def test_the_number_of_kinds_is_bounded():
    throttle = Throttle(60.0, clock=ManualClock())
    for number in range(MAX_KEYS):
        throttle.record(number)

    assert throttle.record("one more") == 0
    assert throttle.record(0) == 0, "all counts start again"
