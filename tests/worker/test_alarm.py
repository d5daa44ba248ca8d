"""The alarm that interrupts code which does not return, and the note that another process reads."""

import asyncio
import itertools
import mmap
import signal
import threading

import pytest

from saga_engine.payload.encryption import (
    SealError,
    Sealing,
    command_place,
    failure_place,
    input_place,
    key_place,
    reply_place,
)
from saga_engine.payload.guard import Call, CodeError, guarded
from saga_engine.vocabulary import Direction
from saga_engine.worker.time_limit import (
    FRACTIONS,
    NOTE_BYTES,
    Alarm,
    WatchedCodec,
    read_note,
    written_note,
)

CALL = Call("shop", "r-1", "charge", Direction.ACTION, "card.charge", "charge", "sagas.py:1")
SOON = 0.05


def spin() -> None:
    for _ in itertools.count():
        pass


def swallow(times: int) -> None:
    for _ in range(times):
        try:
            spin()
        except BaseException:  # noqa: BLE001 - that is the point
            continue
    spin()


def wait_for_ever() -> None:
    threading.Event().wait()


@pytest.mark.parametrize("work", [spin, wait_for_ever, lambda: swallow(3)])
def test_what_does_not_return_is_interrupted_again_and_again(work):
    alarm = Alarm(SOON)
    with alarm.set(), pytest.raises(CodeError, match=r"did not return within 0\.05 s and was"):
        guarded(alarm, CALL, work)
    assert alarm.call is None


def test_nothing_is_raised_in_what_surrounds_a_call():
    alarm = Alarm(SOON)
    with alarm.set():
        frame = spin.__code__
        for _ in range(FRACTIONS * 2):  # the timer of a call that is over
            alarm._ring(signal.SIGALRM, None)
        assert guarded(alarm, CALL, int, "7") == 7
        alarm.enter(CALL)
        for _ in range(FRACTIONS * 2):
            alarm._ring(signal.SIGALRM, None)  # no frame: not in the author's code
        alarm.leave()
    assert frame is spin.__code__


def test_a_process_that_was_stopped_gets_the_rest_of_its_time():
    alarm = Alarm(60.0)
    with alarm.set():
        alarm.enter(CALL)
        signal.raise_signal(signal.SIGALRM)  # however long it was stopped, it is one tick
        alarm.leave()


def test_the_handler_and_the_timer_of_others_are_left_as_they_were():
    before = signal.getsignal(signal.SIGALRM)
    rest = signal.setitimer(signal.ITIMER_REAL, 0)  # of the time limit of this test
    try:
        alarm = Alarm(60.0)
        with alarm.set():
            guarded(alarm, CALL, int, "7")
            assert signal.getitimer(signal.ITIMER_REAL)[1] == 15.0
        assert signal.getsignal(signal.SIGALRM) is before
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *rest)


def test_a_timer_of_the_caller_goes_on_when_the_alarm_is_over():
    rest = signal.setitimer(signal.ITIMER_REAL, 3600.0, 7.0)
    try:
        alarm = Alarm(60.0)
        with alarm.set():
            guarded(alarm, CALL, int, "7")
        left, interval = signal.getitimer(signal.ITIMER_REAL)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *rest)
    assert 0 < left <= 3600.0
    assert interval == 7.0


def test_an_idle_worker_has_no_timer():
    alarm = Alarm(60.0)
    with alarm.set():
        guarded(alarm, CALL, int, "7")
        signal.raise_signal(signal.SIGALRM)
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


async def test_in_another_thread_a_call_takes_as_long_as_it_takes():
    def call() -> int:
        alarm = Alarm(SOON)
        with alarm.set():
            return guarded(alarm, CALL, int, "7")

    assert await asyncio.to_thread(call) == 7


def test_each_call_is_noted_while_it_lasts():
    memory = mmap.mmap(-1, NOTE_BYTES)
    alarm = Alarm(60.0, memory)
    noted = guarded(alarm, CALL, read_note, memory)
    number, _ = read_note(memory)
    assert noted == (number - 1, list(CALL))
    assert number % 2 == 0


def test_a_note_is_of_a_bounded_length_whatever_a_function_is_called():
    call = CALL._replace(function="\ud800" * 10_000)
    memory = mmap.mmap(-1, NOTE_BYTES)
    assert len(written_note(call)) < NOTE_BYTES
    _, parts = guarded(Alarm(60.0, memory), call, read_note, memory)
    assert parts[:5] == list(CALL[:5])
    assert len(parts) == len(CALL)


class SlowCodec:
    """Its calls never return."""

    def seal(self, plain: bytes, place: str) -> str:
        spin()
        return f"{plain!r} {place}"

    def unseal(self, sealed: str, place: str) -> bytes:
        wait_for_ever()
        return f"{sealed} {place}".encode()


PLACES = [
    (input_place("shop", "r-1"), ("shop", "r-1", "", None)),
    (command_place("r-1", "charge", Direction.ACTION), ("", "r-1", "charge", Direction.ACTION)),
    (reply_place("r-1", "charge", Direction.ACTION), ("", "r-1", "charge", Direction.ACTION)),
    (failure_place("r-1"), ("", "r-1", "", None)),
    (key_place("shop", "k/1"), ("shop", "", "", None)),
]


@pytest.mark.parametrize(("place", "named"), PLACES)
def test_a_codec_that_does_not_return_is_interrupted_and_cannot_seal(place, named):
    memory = mmap.mmap(-1, NOTE_BYTES)
    alarm = Alarm(SOON, memory)
    noted: list[Call] = []

    class Codec(SlowCodec):
        def seal(self, plain: bytes, place: str) -> str:
            assert alarm.call is not None
            noted.append(alarm.call)
            return super().seal(plain, place)

    sealing = Sealing(WatchedCodec(Codec(), alarm))
    with alarm.set():
        with pytest.raises(SealError, match=r"cannot be sealed: the codec did not return within"):
            sealing.sealed({"card": 1}, place)
        with pytest.raises(SealError, match=r"cannot be unsealed: the codec did not return within"):
            sealing.unsealed({"$sealed": "x"}, place)
    assert noted[0][:4] == named
    assert noted[0].function == "Codec.seal"
    assert alarm.call is None


def test_a_codec_within_a_mapping_is_part_of_its_call():
    alarm = Alarm(SOON)
    sealing = Sealing(WatchedCodec(SlowCodec(), alarm))
    with alarm.set():
        with pytest.raises(SealError, match="did not return within"):
            guarded(alarm, CALL, sealing.unsealed, {"$sealed": "x"}, ("failure", "r-1"))
        assert alarm.call is None


class ValidationError(Exception):
    """Named like pydantic's, and it never says what it is about."""

    def errors(self, **_: object) -> list[object]:
        spin()
        return []


def test_an_error_that_does_not_say_what_it_is_about_is_interrupted():
    def fail() -> None:
        raise ValidationError

    alarm = Alarm(SOON)
    with alarm.set(), pytest.raises(CodeError, match="raised ValidationError"):
        guarded(alarm, CALL, fail)
