"""The time limit of user code, and the call note that the watchdog reads."""

import asyncio
import gc
import itertools
import mmap
import signal
import threading

import pytest

from saga_engine.call_time_limit import (
    CALL_NOTE_BYTES,
    TICKS_PER_TIMEOUT,
    SignalTimeLimit,
    TimeLimitedCodec,
    decode_call_note,
    encode_call_note,
)
from saga_engine.payload.encryption import (
    EncryptionError,
    PayloadEncryption,
    command_associated_data,
    failure_associated_data,
    input_associated_data,
    key_associated_data,
    reply_associated_data,
)
from saga_engine.payload.guard import UserCodeCall, UserCodeError, call_user_code
from saga_engine.vocabulary import Direction

CALL = UserCodeCall(
    "shop", "r-1", "charge", Direction.ACTION, "card.charge", "charge", "sagas.py:1"
)


SHORT_TIMEOUT = 0.05


@pytest.fixture(autouse=True)
def _no_garbage_collection():
    """Hypothesis has a callback there: an interrupt that is raised in it is lost."""
    gc.disable()
    yield
    gc.enable()


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


def wait_without_end() -> None:
    threading.Event().wait()


@pytest.mark.parametrize("work", [spin, wait_without_end, lambda: swallow(3)])
def test_a_call_that_does_not_return_is_interrupted_repeatedly(work):
    alarm = SignalTimeLimit(SHORT_TIMEOUT)
    with (
        alarm.install(),
        pytest.raises(UserCodeError, match=r"did not return within 0\.05 s and was"),
    ):
        call_user_code(alarm, CALL, work)
    assert alarm.call is None


def test_nothing_is_raised_in_the_code_around_a_call():
    alarm = SignalTimeLimit(SHORT_TIMEOUT)
    with alarm.install():
        frame = spin.__code__
        for _ in range(TICKS_PER_TIMEOUT * 2):  # a timer of an earlier call
            alarm._on_tick(signal.SIGALRM, None)
        assert call_user_code(alarm, CALL, int, "7") == 7
        alarm.enter(CALL)
        for _ in range(TICKS_PER_TIMEOUT * 2):
            alarm._on_tick(signal.SIGALRM, None)  # no frame: not in user code
        alarm.leave()
    assert frame is spin.__code__


def test_a_process_that_was_stopped_has_the_rest_of_its_time():
    alarm = SignalTimeLimit(60.0)
    with alarm.install():
        alarm.enter(CALL)
        signal.raise_signal(signal.SIGALRM)  # a stop of any length is one tick
        alarm.leave()


def test_the_handler_and_timer_of_others_are_restored():
    before = signal.getsignal(signal.SIGALRM)
    rest = signal.setitimer(signal.ITIMER_REAL, 0)  # the rest of this test's own time limit
    try:
        alarm = SignalTimeLimit(60.0)
        with alarm.install():
            call_user_code(alarm, CALL, int, "7")
            assert signal.getitimer(signal.ITIMER_REAL)[1] == 15.0
        assert signal.getsignal(signal.SIGALRM) is before
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *rest)


def test_a_timer_of_the_caller_continues_afterwards():
    rest = signal.setitimer(signal.ITIMER_REAL, 3600.0, 7.0)
    try:
        alarm = SignalTimeLimit(60.0)
        with alarm.install():
            call_user_code(alarm, CALL, int, "7")
        left, interval = signal.getitimer(signal.ITIMER_REAL)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *rest)
    assert 0 < left <= 3600.0
    assert interval == 7.0


def test_an_idle_worker_has_no_timer():
    alarm = SignalTimeLimit(60.0)
    with alarm.install():
        call_user_code(alarm, CALL, int, "7")
        signal.raise_signal(signal.SIGALRM)
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


async def test_in_another_thread_calls_are_not_limited():
    def call() -> int:
        alarm = SignalTimeLimit(SHORT_TIMEOUT)
        with alarm.install():
            return call_user_code(alarm, CALL, int, "7")

    assert await asyncio.to_thread(call) == 7


def test_each_call_is_noted_while_it_lasts():
    memory = mmap.mmap(-1, CALL_NOTE_BYTES)
    alarm = SignalTimeLimit(60.0, memory)
    noted = call_user_code(alarm, CALL, decode_call_note, memory)
    number, _ = decode_call_note(memory)
    assert noted == (number - 1, list(CALL))
    assert number % 2 == 0


def test_a_call_note_has_a_bounded_length():
    call = CALL._replace(function="\ud800" * 10_000)
    memory = mmap.mmap(-1, CALL_NOTE_BYTES)
    assert len(encode_call_note(call)) < CALL_NOTE_BYTES
    _, parts = call_user_code(SignalTimeLimit(60.0, memory), call, decode_call_note, memory)
    assert parts[:5] == list(CALL[:5])
    assert len(parts) == len(CALL)


class SlowCodec:
    """A codec whose calls never return."""

    def encrypt(self, plaintext: bytes, associated_data: str) -> str:
        spin()
        return f"{plaintext!r} {associated_data}"

    def decrypt(self, ciphertext: str, associated_data: str) -> bytes:
        wait_without_end()
        return f"{ciphertext} {associated_data}".encode()


PLACES = [
    (input_associated_data("shop", "r-1"), ("shop", "r-1", "", None)),
    (
        command_associated_data("r-1", "charge", Direction.ACTION),
        ("", "r-1", "charge", Direction.ACTION),
    ),
    (
        reply_associated_data("r-1", "charge", Direction.ACTION),
        ("", "r-1", "charge", Direction.ACTION),
    ),
    (failure_associated_data("r-1"), ("", "r-1", "", None)),
    (key_associated_data("shop", "k/1"), ("shop", "", "", None)),
]


@pytest.mark.parametrize(("place", "named"), PLACES)
def test_a_codec_that_does_not_return_is_interrupted(place, named):
    memory = mmap.mmap(-1, CALL_NOTE_BYTES)
    alarm = SignalTimeLimit(SHORT_TIMEOUT, memory)
    noted: list[UserCodeCall] = []

    class Codec(SlowCodec):
        def encrypt(self, plaintext: bytes, associated_data: str) -> str:
            assert alarm.call is not None
            noted.append(alarm.call)
            return super().encrypt(plaintext, associated_data)

    encryption = PayloadEncryption(TimeLimitedCodec(Codec(), alarm))
    with alarm.install():
        with pytest.raises(
            EncryptionError, match=r"cannot be encrypted: the codec did not return within"
        ):
            encryption.encrypt({"card": 1}, place)
        with pytest.raises(
            EncryptionError, match=r"cannot be decrypted: the codec did not return within"
        ):
            encryption.decrypt({"$encrypted": "x"}, place)
    assert noted[0][:4] == named
    assert noted[0].function == "Codec.encrypt"
    assert alarm.call is None


def test_a_codec_within_a_mapping_is_part_of_its_call():
    alarm = SignalTimeLimit(SHORT_TIMEOUT)
    encryption = PayloadEncryption(TimeLimitedCodec(SlowCodec(), alarm))
    with alarm.install():
        with pytest.raises(EncryptionError, match="did not return within"):
            call_user_code(alarm, CALL, encryption.decrypt, {"$encrypted": "x"}, ("failure", "r-1"))
        assert alarm.call is None


class ValidationError(Exception):
    """An error named like pydantic's whose text hangs."""

    def errors(self, **_: object) -> list[object]:
        spin()
        return []


def test_an_error_whose_text_hangs_is_interrupted():
    def fail() -> None:
        raise ValidationError

    alarm = SignalTimeLimit(SHORT_TIMEOUT)
    with alarm.install(), pytest.raises(UserCodeError, match="raised ValidationError"):
        call_user_code(alarm, CALL, fail)
