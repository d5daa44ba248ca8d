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
from saga_engine.alarm_signal import borrowed
from saga_engine.containment import CALL
from saga_engine.payload import guard
from saga_engine.payload.encryption import Codec, SealError
from saga_engine.payload.guard import Call, Overrun, Watch
from saga_engine.vocabulary import Direction

FRACTIONS = 4
"""Ticks in a timeout. Code that swallows an Overrun gets another one with each further tick."""

HEADER = struct.Struct("=QI")
"""In front of a note: its number, which is odd during a call, and its length in bytes."""

NOTE_BYTES = 2048
"""Bytes of the memory that holds the note."""

_OURS = (__file__, guard.__file__, containment.__file__)


class Alarm:
    """
    A Watch that interrupts calls after *timeout* seconds, while `set` surrounds them.

    Args:
        memory: where calls are noted, NOTE_BYTES long; None: nowhere.
    """

    def __init__(self, timeout: float, memory: mmap.mmap | None = None) -> None:
        self._timeout = timeout
        self._tick = timeout / FRACTIONS
        self._memory = memory
        self._number = 0
        self._ticks = 0
        self._call: Call | None = None
        self._inner = 0
        self._outside: Token[Any]
        self._set = False
        self._ticking = False

    @contextmanager
    def set(self) -> Iterator[None]:
        """Take SIGALRM for as long as the block lasts, if this is the main thread."""
        with borrowed(self._ring) as rings:
            self._set = rings
            try:
                yield
            finally:
                self._set = self._ticking = False

    @property
    def call(self) -> Call | None:
        """The call that is being made."""
        return self._call

    def enter(self, call: Call) -> None:
        """Begin to watch a call; one that is made within another belongs to that one."""
        if self._call is not None:
            self._inner += 1
            return
        self._ticks = 0
        self._call = call
        self._outside = CALL.set(call)
        if self._memory is not None:
            written = written_note(call)
            self._memory[HEADER.size : HEADER.size + len(written)] = written
            self._number += 1
            HEADER.pack_into(self._memory, 0, self._number, len(written))
        if self._set and not self._ticking:
            self._ticking = True
            signal.setitimer(signal.ITIMER_REAL, self._tick, self._tick)

    def leave(self) -> None:
        """End the watch."""
        if self._inner:
            self._inner -= 1
            return
        self._call = None
        CALL.reset(self._outside)
        if self._memory is not None:
            self._number += 1
            HEADER.pack_into(self._memory, 0, self._number, 0)

    def _ring(self, _number: int, frame: FrameType | None) -> None:
        """Count a tick; raise in the author's code, and never in the code that surrounds it."""
        if self._call is None:
            self._ticking = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            return
        if frame is None or frame.f_code.co_filename in _OURS:
            return
        self._ticks += 1
        if self._ticks > FRACTIONS:  # the first may have come at once
            raise Overrun(self._timeout)


class WatchedCodec:
    """A codec of the user's whose calls are watched, and refused when they take too long."""

    def __init__(self, codec: Codec, watch: Watch) -> None:
        self._codec = codec
        self._watch = watch

    def seal(self, plain: bytes, place: str) -> str | None:
        """As the codec's; SealError when it is interrupted."""
        self._watch.enter(_call_of(self._codec, "seal", place))
        try:
            return self._codec.seal(plain, place)
        except Overrun as error:
            raise _interrupted("sealed", error) from None
        finally:
            self._watch.leave()

    def unseal(self, sealed: str, place: str) -> bytes:
        """As the codec's; SealError when it is interrupted."""
        self._watch.enter(_call_of(self._codec, "unseal", place))
        try:
            return self._codec.unseal(sealed, place)
        except Overrun as error:
            raise _interrupted("unsealed", error) from None
        finally:
            self._watch.leave()


def _interrupted(participle: str, error: Overrun) -> SealError:
    return SealError(
        f"cannot be {participle}: the codec did not return within {error.seconds:g} s and was"
        " interrupted"
    )


def _call_of(codec: Codec, name: str, place: str) -> Call:
    """Name a call of a codec by the place that a value belongs to; see `saga.sealing`."""
    function = f"{type(codec).__name__}.{name}"
    kind, *parts = place.split("/", 3)
    if kind in ("input", "key"):
        saga, run_id = (*parts, "", "")[:2]
        return Call(saga, run_id if kind == "input" else "", "", None, "", function, "")
    run_id, step, direction = (*parts, "", "", "")[:3]
    toward = Direction(direction) if direction else None
    return Call("", run_id, step, toward, "", function, "")


def written_note(call: Call) -> bytes:
    """Write a call for `read_note`."""
    saga, run_id, step, direction, command, function, where = call
    texts = (saga, run_id, step, direction or "", command, function, where)
    return "\0".join(texts).encode(errors="replace")[: NOTE_BYTES - HEADER.size]


def read_note(memory: mmap.mmap | bytes) -> tuple[int, list[str]]:
    """Read the number of the last note and its parts, in the order of Call's."""
    number, length = HEADER.unpack_from(memory, 0)
    written = memory[HEADER.size : HEADER.size + min(length, NOTE_BYTES - HEADER.size)]
    parts = written.decode(errors="replace").split("\0")
    return number, [*parts, *[""] * (len(Call._fields) - len(parts))]
