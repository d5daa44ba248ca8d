"""
Interrupting the author's code: an interval timer raises Overrun inside a call that takes too long.

Python runs handlers of signals in the main thread, so only a worker whose event loop runs there has
an alarm; embedded in another thread it has none. The timer ticks in fractions of the timeout while
the worker is busy, because arming it for each call would cost two system calls. The handler counts
the ticks of a call, so that a process that was stopped for a minute gets the rest of its time when
it goes on. Code in C that does not return to the interpreter cannot be interrupted. For that, each
call is noted in memory that another process reads; see `cli.overseer`.
"""

import mmap
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Token
from types import FrameType
from typing import Any

from saga_engine import containment
from saga_engine.alarm_signal import borrow_alarm
from saga_engine.containment import CURRENT_CALL
from saga_engine.payload import guard
from saga_engine.payload.encryption import Codec, EncryptionError
from saga_engine.payload.guard import CallTimeLimit, TimeLimitExceeded, UserCodeCall
from saga_engine.vocabulary import Direction

TICKS_PER_TIMEOUT = 4
"""Ticks in a timeout. Code that swallows an Overrun gets another one with each further tick."""

CALL_NOTE_HEADER = struct.Struct("=QI")
"""In front of a note: its number, which is odd during a call, and its length in bytes."""

CALL_NOTE_BYTES = 2048
"""Bytes of the memory that holds the note."""

_ENGINE_FILES = (__file__, guard.__file__, containment.__file__)


class TimeLimitWatch:
    """
    A Watch that interrupts calls after *timeout* seconds, while `set` surrounds them.

    Args:
        memory: where calls are noted, NOTE_BYTES long; None: nowhere.
    """

    def __init__(self, timeout: float, memory: mmap.mmap | None = None) -> None:
        self._timeout = timeout
        self._tick_interval = timeout / TICKS_PER_TIMEOUT
        self._memory = memory
        self._sequence = 0
        self._tick_count = 0
        self._call: UserCodeCall | None = None
        self._nested_calls = 0
        self._context_token: Token[Any]
        self._installed = False
        self._timer_running = False

    @contextmanager
    def install(self) -> Iterator[None]:
        """Take SIGALRM for as long as the block lasts, if this is the main thread."""
        with borrow_alarm(self._on_tick) as is_main_thread:
            self._installed = is_main_thread
            try:
                yield
            finally:
                self._installed = self._timer_running = False

    @property
    def call(self) -> UserCodeCall | None:
        """The call that is being made."""
        return self._call

    def enter(self, call: UserCodeCall) -> None:
        """Begin to watch a call; one that is made within another belongs to that one."""
        if self._call is not None:
            self._nested_calls += 1
            return
        self._tick_count = 0
        self._call = call
        self._context_token = CURRENT_CALL.set(call)
        if self._memory is not None:
            encoded = encode_call_note(call)
            self._memory[CALL_NOTE_HEADER.size : CALL_NOTE_HEADER.size + len(encoded)] = encoded
            self._sequence += 1
            CALL_NOTE_HEADER.pack_into(self._memory, 0, self._sequence, len(encoded))
        if self._installed and not self._timer_running:
            self._timer_running = True
            signal.setitimer(signal.ITIMER_REAL, self._tick_interval, self._tick_interval)

    def leave(self) -> None:
        """End the watch."""
        if self._nested_calls:
            self._nested_calls -= 1
            return
        self._call = None
        CURRENT_CALL.reset(self._context_token)
        if self._memory is not None:
            self._sequence += 1
            CALL_NOTE_HEADER.pack_into(self._memory, 0, self._sequence, 0)

    def _on_tick(self, _signum: int, frame: FrameType | None) -> None:
        """Count a tick; raise in the author's code, and never in the code that surrounds it."""
        if self._call is None:
            self._timer_running = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            return
        if frame is None or frame.f_code.co_filename in _ENGINE_FILES:
            return
        self._tick_count += 1
        if self._tick_count > TICKS_PER_TIMEOUT:  # the first may have come at once
            raise TimeLimitExceeded(self._timeout)


class TimeLimitedCodec:
    """A codec of the user's whose calls are watched, and refused when they take too long."""

    def __init__(self, codec: Codec, watch: CallTimeLimit) -> None:
        self._codec = codec
        self._watch = watch

    def encrypt(self, plaintext: bytes, associated_data: str) -> str | None:
        """As the codec's; SealError when it is interrupted."""
        self._watch.enter(_codec_call(self._codec, "encrypt", associated_data))
        try:
            return self._codec.encrypt(plaintext, associated_data)
        except TimeLimitExceeded as error:
            raise _interruption_error("encrypted", error) from None
        finally:
            self._watch.leave()

    def decrypt(self, ciphertext: str, associated_data: str) -> bytes:
        """As the codec's; SealError when it is interrupted."""
        self._watch.enter(_codec_call(self._codec, "decrypt", associated_data))
        try:
            return self._codec.decrypt(ciphertext, associated_data)
        except TimeLimitExceeded as error:
            raise _interruption_error("decrypted", error) from None
        finally:
            self._watch.leave()


def _interruption_error(participle: str, error: TimeLimitExceeded) -> EncryptionError:
    return EncryptionError(
        f"cannot be {participle}: the codec did not return within {error.seconds:g} s and was"
        " interrupted"
    )


def _codec_call(codec: Codec, method: str, associated_data: str) -> UserCodeCall:
    """Name a call of a codec by the place that a value belongs to; see `saga.sealing`."""
    function = f"{type(codec).__name__}.{method}"
    kind, *parts = associated_data.split("/", 3)
    if kind in ("input", "key"):
        saga, run_id = (*parts, "", "")[:2]
        return UserCodeCall(saga, run_id if kind == "input" else "", "", None, "", function, "")
    run_id, step, direction = (*parts, "", "", "")[:3]
    call_direction = Direction(direction) if direction else None
    return UserCodeCall("", run_id, step, call_direction, "", function, "")


def encode_call_note(call: UserCodeCall) -> bytes:
    """Write a call for `read_note`."""
    saga, run_id, step, direction, command, function, where = call
    texts = (saga, run_id, step, direction or "", command, function, where)
    return "\0".join(texts).encode(errors="replace")[: CALL_NOTE_BYTES - CALL_NOTE_HEADER.size]


def decode_call_note(memory: mmap.mmap | bytes) -> tuple[int, list[str]]:
    """Read the number of the last note and its parts, in the order of Call's."""
    sequence, length = CALL_NOTE_HEADER.unpack_from(memory, 0)
    encoded = memory[
        CALL_NOTE_HEADER.size : CALL_NOTE_HEADER.size
        + min(length, CALL_NOTE_BYTES - CALL_NOTE_HEADER.size)
    ]
    parts = encoded.decode(errors="replace").split("\0")
    return sequence, [*parts, *[""] * (len(UserCodeCall._fields) - len(parts))]
