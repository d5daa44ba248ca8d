"""The number of events of a batch adapts to how long its transaction takes."""

from saga_engine.events.readers.batch_size import BatchSize


def adapted(size: BatchSize, seconds_of, batches: int = 40) -> int:
    """The size after full batches, each of which takes `seconds_of(events)`."""
    for _ in range(batches):
        size.succeeded(size.events, seconds_of(size.events))
    return size.events


def test_it_approaches_the_target():
    assert 480 <= adapted(BatchSize(0.05, 5000), lambda n: n * 0.0001) <= 520
    assert 4 <= adapted(BatchSize(0.05, 5000), lambda n: n * 0.01) <= 20


def test_it_stays_within_its_bounds():
    assert adapted(BatchSize(0.05, 5000), lambda n: 0.0) == 5000
    assert adapted(BatchSize(0.05, 30), lambda n: 0.0) == 30
    assert adapted(BatchSize(0.05, 5000), lambda n: 10.0 * n) == 1


def test_a_slow_commit_does_not_make_batches_of_one_event():
    assert adapted(BatchSize(0.05, 5000), lambda n: 0.1 + n * 0.0001) > 500


def test_a_batch_that_is_not_full_says_nothing_about_larger_ones():
    size = BatchSize(0.05, 5000)
    size.succeeded(size.events - 1, 0.0001)
    assert size.events == 100


def test_a_failure_halves_it():
    size = BatchSize(0.05, 5000)
    for expected in (50, 25, 12, 6, 3, 2, 1, 1):
        size.failed()
        assert size.events == expected
