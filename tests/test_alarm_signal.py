"""SIGALRM and its timer are borrowed from a caller, and returned as they were."""

import signal
import threading
from collections.abc import Iterator

import pytest

from saga_engine.alarm_signal import borrow_alarm
from tests.kit.alarms import handled_alarms, wait_for_alarm

LONG, SOON = 3600.0, 0.05


@pytest.fixture
def received_alarms() -> Iterator[list[int]]:
    """The signals that the handler of the caller received."""
    with handled_alarms() as received:
        yield received


def test_the_borrowed_signal_has_its_own_handler_and_no_timer(received_alarms):
    borrowed: list[int] = []
    signal.setitimer(signal.ITIMER_REAL, LONG)
    with borrow_alarm(lambda number, _: borrowed.append(number)) as is_set:
        assert is_set
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        signal.raise_signal(signal.SIGALRM)
    assert (borrowed, received_alarms) == ([signal.SIGALRM], [])


def test_the_handler_and_the_timer_of_the_caller_are_restored(received_alarms):
    handler = signal.getsignal(signal.SIGALRM)
    signal.setitimer(signal.ITIMER_REAL, LONG, 7.0)
    with borrow_alarm(lambda *_: None):
        signal.setitimer(signal.ITIMER_REAL, LONG)
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    assert signal.getsignal(signal.SIGALRM) is handler
    assert 0 < left <= LONG
    assert interval == 7.0
    assert received_alarms == []


def test_a_timer_without_one_before_is_disarmed(received_alarms):
    with borrow_alarm(lambda *_: None):
        signal.setitimer(signal.ITIMER_REAL, LONG)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert received_alarms == []


def test_a_timer_that_expired_meanwhile_fires_afterwards(received_alarms):
    borrowed: list[int] = []
    signal.setitimer(signal.ITIMER_REAL, SOON)
    with borrow_alarm(lambda number, _: borrowed.append(number)):
        signal.setitimer(signal.ITIMER_REAL, 2 * SOON)
        wait_for_alarm(borrowed)
    wait_for_alarm(received_alarms)
    assert (borrowed, received_alarms) == ([signal.SIGALRM], [signal.SIGALRM])


def test_a_thread_other_than_the_main_one_changes_nothing(received_alarms):
    handler, seen = signal.getsignal(signal.SIGALRM), list[object]()

    def borrow() -> None:
        with borrow_alarm(lambda *_: None) as is_set:
            seen.extend((is_set, signal.getsignal(signal.SIGALRM)))

    thread = threading.Thread(target=borrow)
    thread.start()
    thread.join()
    assert seen == [False, handler]
    assert received_alarms == []
