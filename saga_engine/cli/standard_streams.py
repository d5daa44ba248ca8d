"""
The standard streams of a command, usable in whatever state the caller left them.

A stream that is closed leaves its number free, and the next socket would get it: what a library
then writes to "stderr" would go to PostgreSQL. So each number is taken, by a file that refuses what
the closed stream would have refused.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, TextIO, cast

from saga_engine.errors import SagaEngineError


class OutputError(SagaEngineError):
    """stdout does not take what a command prints; what was asked for has been done."""

    exit_code: ClassVar[int] = 10


_RAISING_ERROR_HANDLERS = ("strict", "surrogateescape", "surrogatepass")
"""Ways to write a character that raise for some that the stream's encoding lacks."""


def prepare_standard_streams() -> None:
    """Take the numbers of closed streams, and let no character stop what is printed."""
    for name, descriptor, open_flags in (
        ("stdin", 0, os.O_WRONLY),
        ("stdout", 1, os.O_RDONLY),
        ("stderr", 2, os.O_WRONLY),
    ):
        if getattr(sys, name) is None:
            _occupy_descriptor(descriptor, open_flags)
            placeholder = open(descriptor, "r" if descriptor == 0 else "w", closefd=False)  # noqa: SIM115 - it stays open
            setattr(sys, name, placeholder)
    if not os.environ.get("COLUMNS", "1").strip("0").isdecimal():
        del os.environ["COLUMNS"]  # some terminals say that they have 0
    for stream in (sys.stdout, sys.stderr):
        reconfigurable = cast("Any", stream)
        if getattr(reconfigurable, "errors", "") in _RAISING_ERROR_HANDLERS and hasattr(
            reconfigurable, "reconfigure"
        ):
            reconfigurable.reconfigure(errors="backslashreplace")


class TolerantStdout:
    """
    A stdout whose troubles end no command: what it does not take is lost, and the command goes on.

    So a command does what it was asked for and exits with its own code, whether it is read or not.
    `failure` is the first error; a reader that has gone is none.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._discard_on_error():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._discard_on_error():
            self._stream.flush()

    @contextmanager
    def _discard_on_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            redirect_to_devnull(
                self._stream
            )  # or the interpreter would try again at its end, and exit with 120
            if not isinstance(error, BrokenPipeError):
                self.failure = self.failure or error


@contextmanager
def tolerant_stdout() -> Iterator[TolerantStdout]:
    """Have an Output for stdout until the block ends; then everything is written, or lost."""
    original = sys.stdout
    output = TolerantStdout(original)
    sys.stdout = cast("TextIO", output)
    try:
        yield output
    finally:
        output.flush()
        sys.stdout = original


def output_error(error: OSError, exit_code: int) -> OutputError:
    """
    Say that the output was lost, beside the command's own exit code.

    Only after 0 it is known that what was asked for has been done.
    """
    done_text = "" if exit_code else " What was asked for has been done."
    return OutputError(
        f"The output cannot be written: {error.strerror or type(error).__name__}.{done_text}"
        " Give the"
        " command another stdout to see it."
    )


def write_stderr(text: str) -> None:
    """Print one line to stderr, or lose it: that does not end a command."""
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the command line speaks
    except OSError:
        redirect_to_devnull(sys.stderr)


def redirect_to_devnull(stream: TextIO) -> None:
    """Send what a stream has not written, and will write, to nowhere."""
    with suppress(OSError, ValueError):  # a stream of a test may have no number
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, stream.fileno())
        os.close(devnull)


def _occupy_descriptor(descriptor: int, open_flags: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        devnull = os.open(os.devnull, open_flags)
        if devnull != descriptor:
            os.dup2(devnull, descriptor)
            os.close(devnull)
