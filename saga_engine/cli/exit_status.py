"""How a command fails: the sentence it prints to stderr, and its exit code."""

import asyncio
import errno

from saga_engine.cli import standard_streams
from saga_engine.errors import SagaEngineError
from saga_engine.telemetry.redaction import redact_secrets, sanitize_line

EXIT_INTERRUPTED = 130

_REPORTED_ATTRIBUTE = "_saga_engine_reported"


def message_and_exit_code(error: BaseException) -> tuple[str, int]:
    """Give the sentence, which is empty where none is needed, and the exit code."""
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
    Print the sentence of an error, and give its exit code.

    An error is printed once, although two threads may want to: the one that it is raised in, and
    the one that ends a process whose other threads do not end.
    """
    message, code = message_and_exit_code(error)
    attributes = vars(_unwrap_group(error))
    if message and _REPORTED_ATTRIBUTE not in attributes:
        attributes[_REPORTED_ATTRIBUTE] = True
        print_error(message)
    return code


def print_error(text: str) -> None:
    """Print a sentence to stderr."""
    # What others wrote may be quoted in it, and what libraries say may hold a password.
    safe = "\n".join(sanitize_line(redact_secrets(line)) for line in text.splitlines())
    standard_streams.write_stderr(f"saga-engine: {safe}")


def _unwrap_group(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
