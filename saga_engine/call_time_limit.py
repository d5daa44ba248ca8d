"""
Interrupts user code: an interval timer raises TimeLimitExceeded in a call that runs too long.

Python runs signal handlers in the main thread, so only a process whose event loop runs there has
this timer; a worker embedded in another thread has none. The timer ticks in fractions of the
timeout while the process is busy, because setting it for each call would cost two system calls. The
handler counts the ticks of a call, so a process that was stopped for a minute still has the rest of
its time when it continues. C code that does not return to the interpreter cannot be interrupted.
For that case each call is noted in memory that another process reads; see `cli.watchdog`.
"""

import mmap
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Token
from functools import lru_cache
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
"""Ticks in a timeout. Code that catches TimeLimitExceeded gets another one with each tick."""

CALL_NOTE_HEADER = struct.Struct("=QI")
"""Before a note: its sequence number, which is odd during a call, and its length in bytes."""

CALL_NOTE_BYTES = 2048
"""Size of the memory that holds the note, in bytes."""

_ENGINE_FILES = (__file__, guard.__file__, containment.__file__)


class SignalTimeLimit:
    """
    A time limit that interrupts calls after *timeout* seconds, inside `install`.

    Args:
        memory: where calls are noted, `CALL_NOTE_BYTES` long; None: calls are not noted.
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
        """Handle SIGALRM inside the block, if this is the main thread."""
        with borrow_alarm(self._on_tick) as is_main_thread:
            self._installed = is_main_thread
            try:
                yield
            finally:
                self._installed = self._timer_running = False

    @property
    def has_interrupted(self) -> bool:
        """Whether the call in progress, or else the last one, was interrupted."""
        return self._tick_count > TICKS_PER_TIMEOUT

    @property
    def call(self) -> UserCodeCall | None:
        """The call in progress, if there is one."""
        return self._call

    def enter(self, call: UserCodeCall) -> None:
        """Start the time limit of a call; a call within another counts as part of that one."""
        if self._call is not None:
            self._nested_calls += 1
            return
        self._tick_count = 0
        self._call = call
        self._context_token = CURRENT_CALL.set(call)
        if self._memory is not None:
            # Most calls that belong to no run, those of events, are the same millions of times.
            encoded = encode_call_note(call) if call.run_id else _note_without_run(call)
            self._memory[CALL_NOTE_HEADER.size : CALL_NOTE_HEADER.size + len(encoded)] = encoded
            self._sequence += 1
            CALL_NOTE_HEADER.pack_into(self._memory, 0, self._sequence, len(encoded))
        if self._installed and not self._timer_running:
            self._timer_running = True
            signal.setitimer(signal.ITIMER_REAL, self._tick_interval, self._tick_interval)

    def leave(self) -> None:
        """End the time limit of the call."""
        if self._nested_calls:
            self._nested_calls -= 1
            return
        self._call = None
        CURRENT_CALL.reset(self._context_token)
        if self._memory is not None:
            self._sequence += 1
            CALL_NOTE_HEADER.pack_into(self._memory, 0, self._sequence, 0)

    def _on_tick(self, _signum: int, frame: FrameType | None) -> None:
        """Count a tick; raise in user code only, never in the engine's code around it."""
        if self._call is None:
            self._timer_running = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            return
        if frame is None or frame.f_code.co_filename in _ENGINE_FILES:
            return
        self._tick_count += 1
        if self._tick_count > TICKS_PER_TIMEOUT:  # the first tick may follow immediately
            raise TimeLimitExceeded(self._timeout)


class TimeLimitedCodec:
    """A user's payload codec whose calls are limited in time."""

    def __init__(self, codec: Codec, time_limit: CallTimeLimit) -> None:
        self._codec = codec
        self._time_limit = time_limit

    def encrypt(self, plaintext: bytes, associated_data: str) -> str | None:
        """Encrypt as the codec does; raises EncryptionError when interrupted."""
        self._time_limit.enter(_codec_call(self._codec, "encrypt", associated_data))
        try:
            return self._codec.encrypt(plaintext, associated_data)
        except TimeLimitExceeded as error:
            raise _interruption_error("encrypted", error) from None
        finally:
            self._time_limit.leave()

    def decrypt(self, ciphertext: str, associated_data: str) -> bytes:
        """Decrypt as the codec does; raises EncryptionError when interrupted."""
        self._time_limit.enter(_codec_call(self._codec, "decrypt", associated_data))
        try:
            return self._codec.decrypt(ciphertext, associated_data)
        except TimeLimitExceeded as error:
            raise _interruption_error("decrypted", error) from None
        finally:
            self._time_limit.leave()


def _interruption_error(participle: str, error: TimeLimitExceeded) -> EncryptionError:
    return EncryptionError(
        f"cannot be {participle}: the codec did not return within {error.seconds:g} s and was"
        " interrupted"
    )


def _codec_call(codec: Codec, method: str, associated_data: str) -> UserCodeCall:
    """Name a codec call after the value's associated data; see `payload.encryption`."""
    function = f"{type(codec).__name__}.{method}"
    kind, *parts = associated_data.split("/", 3)
    if kind in ("input", "key"):
        saga, run_id = (*parts, "", "")[:2]
        step, direction = "", ""
        run_id = run_id if kind == "input" else ""
    else:
        saga = ""
        run_id, step, direction = (*parts, "", "", "")[:3]
    return UserCodeCall(
        saga=saga,
        run_id=run_id,
        step=step,
        direction=Direction(direction) if direction else None,
        command="",
        function=function,
        source_location="",
    )


def encode_call_note(call: UserCodeCall) -> bytes:
    """Encode a call for `decode_call_note`."""
    saga, run_id, step, direction, command, function, where = call
    texts = (saga, run_id, step, direction or "", command, function, where)
    return "\0".join(texts).encode(errors="replace")[: CALL_NOTE_BYTES - CALL_NOTE_HEADER.size]


_note_without_run = lru_cache(maxsize=1000)(encode_call_note)


def decode_call_note(memory: mmap.mmap | bytes) -> tuple[int, list[str]]:
    """Decode the sequence number of the last note and the fields of its UserCodeCall."""
    sequence, length = CALL_NOTE_HEADER.unpack_from(memory, 0)
    encoded = memory[
        CALL_NOTE_HEADER.size : CALL_NOTE_HEADER.size
        + min(length, CALL_NOTE_BYTES - CALL_NOTE_HEADER.size)
    ]
    parts = encoded.decode(errors="replace").split("\0")
    return sequence, [*parts, *[""] * (len(UserCodeCall._fields) - len(parts))]
