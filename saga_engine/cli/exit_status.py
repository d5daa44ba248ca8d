"""The exit codes of the command line, and how an error becomes a sentence on stderr and a code."""

import asyncio
import errno

from saga_engine.cli import standard_streams
from saga_engine.errors import SagaEngineError
from saga_engine.telemetry.redaction import redact_secrets, sanitize_line

EXIT_NOT_COMPLETED = 6
"""The run finished, but its status is not completed."""
EXIT_PARTIAL_FAILURE = 7
"""Some of many failed."""
EXIT_PROBLEMS_FOUND = 8
"""A check found problems."""
EXIT_INTERRUPTED = 130

_REPORTED_ATTRIBUTE = "_saga_engine_reported"


def message_and_exit_code(error: BaseException) -> tuple[str, int]:
    """Return the sentence for an error, or "" if it needs none, and the exit code."""
    error = _unwrap_group(error)
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        return "", EXIT_INTERRUPTED
    if isinstance(error, SagaEngineError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "This process may not open enough files. Raise the limit (`ulimit -n`).", 2
    message = (
        f"This is a bug in saga-engine: {type(error).__name__}: {error}. Please report it, with"
        " what it prints when run again with --debug."
    )
    return message, 1


def print_failure(error: BaseException) -> int:
    """
    Print the sentence of an error and return its exit code.

    An error is printed once, even if two threads report it: the thread that raised it, and the
    thread that exits a process whose other threads do not end.
    """
    message, code = message_and_exit_code(error)
    attributes = vars(_unwrap_group(error))
    if message and _REPORTED_ATTRIBUTE not in attributes:
        attributes[_REPORTED_ATTRIBUTE] = True
        print_error(message)
    return code


def print_error(text: str) -> None:
    """Print a sentence to stderr, without control characters and without passwords."""
    # It may quote data of other programs, and messages of libraries may contain a password.
    safe = "\n".join(sanitize_line(redact_secrets(line)) for line in text.splitlines())
    standard_streams.write_stderr(f"saga-engine: {safe}")


def _unwrap_group(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
