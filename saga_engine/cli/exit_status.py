"""How a command fails: the sentence it prints to stderr, and its exit code."""

import asyncio
import errno

from saga_engine.cli import standard_streams
from saga_engine.errors import SagaEngineError
from saga_engine.telemetry.redaction import one_line, redacted

INTERRUPTED = 130

_SAID = "_saga_engine_said"


def verdict_of(error: BaseException) -> tuple[str, int]:
    """Give the sentence, which is empty where none is needed, and the exit code."""
    error = _single(error)
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        return "", INTERRUPTED
    if isinstance(error, SagaEngineError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "This process may not open enough files. Raise the limit (`ulimit -n`).", 2
    text = (
        f"This is a bug in saga-engine: {type(error).__name__}: {error}. Please report it, with"
        " what it prints when run again with --debug."
    )
    return text, 1


def failed(error: BaseException) -> int:
    """
    Print the sentence of an error, and give its exit code.

    An error is printed once, although two threads may want to: the one that it is raised in, and
    the one that ends a process whose other threads do not end.
    """
    text, code = verdict_of(error)
    known = vars(_single(error))
    if text and _SAID not in known:
        known[_SAID] = True
        said(text)
    return code


def said(text: str) -> None:
    """Print a sentence to stderr."""
    # What others wrote may be quoted in it, and what libraries say may hold a password.
    safe = "\n".join(one_line(redacted(line)) for line in text.splitlines())
    standard_streams.talk(f"saga-engine: {safe}")


def _single(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
