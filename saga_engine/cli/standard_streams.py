"""
The standard streams of a command, made usable even if the caller has closed them.

The file descriptor of a closed stream is free, and the next socket would get it: then the stderr
output of a library would go to PostgreSQL. So each free descriptor is occupied, by a file that
refuses what the closed stream would refuse.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, TextIO, cast

from saga_engine.errors import SagaEngineError


class OutputError(SagaEngineError):
    """stdout could not be written; the command itself succeeded."""

    exit_code: ClassVar[int] = 10


_RAISING_ERROR_HANDLERS = ("strict", "surrogateescape", "surrogatepass")
"""Error handlers that can raise for a character that the stream's encoding lacks."""


def prepare_standard_streams() -> None:
    """Occupy the descriptors of closed streams; escape characters that cannot be encoded."""
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
        del os.environ["COLUMNS"]  # some terminals report 0
    for stream in (sys.stdout, sys.stderr):
        reconfigurable = cast("Any", stream)
        if getattr(reconfigurable, "errors", "") in _RAISING_ERROR_HANDLERS and hasattr(
            reconfigurable, "reconfigure"
        ):
            reconfigurable.reconfigure(errors="backslashreplace")


class TolerantStdout:
    """
    A stdout whose errors do not end the command: output that cannot be written is lost.

    So a command does its work and exits with its own code, whether its output is read or not.
    `failure` is the first error; a closed pipe does not count as one. `is_lost`: after an error or
    a closed pipe, what is written is lost, so a command without an end has no reason to go on.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        self.is_lost = False

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
            )  # or the interpreter would flush it again when it exits, and exit with 120
            self.is_lost = True
            if not isinstance(error, BrokenPipeError):
                self.failure = self.failure or error


@contextmanager
def tolerant_stdout() -> Iterator[TolerantStdout]:
    """Replace stdout by a TolerantStdout until the block ends, and flush it then."""
    original = sys.stdout
    output = TolerantStdout(original)
    sys.stdout = cast("TextIO", output)
    try:
        yield output
    finally:
        output.flush()
        sys.stdout = original


def is_output_lost() -> bool:
    """Whether what is printed from now on is lost: stdout is a closed pipe, or its disk is full."""
    return getattr(sys.stdout, "is_lost", False)


def output_error(error: OSError, exit_code: int) -> OutputError:
    """
    Make the error for lost output; *exit_code* is the command's own.

    Only after exit code 0 the sentence says that the command has done its work.
    """
    done_text = "" if exit_code else " The command itself succeeded."
    return OutputError(
        f"The output cannot be written: {error.strerror or type(error).__name__}.{done_text}"
        " Redirect stdout elsewhere to see it."
    )


def write_stderr(text: str) -> None:
    """Print one line to stderr; an error loses the line and does not end the command."""
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the output of a command
    except OSError:
        redirect_to_devnull(sys.stderr)


def redirect_to_devnull(stream: TextIO) -> None:
    """Discard what a stream has buffered and what is written to it later."""
    with suppress(OSError, ValueError):  # a stream of a test may have no descriptor
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
