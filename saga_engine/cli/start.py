"""`saga-engine start` and `wait`: what a client does, over RabbitMQ alone."""

from contextlib import suppress
from time import monotonic
from typing import Annotated, Any
from uuid import UUID

from cyclopts import Parameter

from saga_engine.cli.database import run_id_of
from saga_engine.cli.json_argument import json_of
from saga_engine.cli.output import AsJson, cell, document, line, say
from saga_engine.client import Client, Ending, Handle
from saga_engine.errors import NotBegun
from saga_engine.protocol.failure import failure_json
from saga_engine.settings import Settings
from saga_engine.vocabulary import Status

NOT_COMPLETED = 6

Timeout = Annotated[
    float | None, Parameter(help="Seconds to wait at the most; without it, for ever.")
]


async def start(  # noqa: PLR0913 - one for each thing a start can say
    saga: str,
    /,
    *,
    given: Annotated[
        str,
        Parameter(name="--input", allow_leading_hyphen=True, help="JSON, @FILE, or - for stdin."),
    ],
    key: Annotated[
        str | None, Parameter(help="A business key: with the same input, the same run.")
    ] = None,
    version: Annotated[
        int | None, Parameter(help="The newest a worker knows when left out.")
    ] = None,
    wait: Annotated[bool, Parameter(help="Wait until it is finished.")] = False,
    timeout: Timeout = None,  # noqa: ASYNC109 - the user's
    as_json: AsJson = False,
) -> int:
    """
    Start a run; with --wait, exit 6 when it ends other than completed.

    Args:
        saga: Its name.
    """
    read = json_of(given, "--input")
    settings, began = Settings.load(), monotonic()
    if timeout is not None:
        patience = min(timeout, settings.client_timeout)
        settings = settings.model_copy(update={"client_timeout": patience})
    async with Client(settings=settings) as client:
        handle = await client.start(saga, read, key=key, version=version)
        if not wait:
            _tell_start(handle, as_json=as_json)
            return 0
        if not as_json:
            say(f"Run {handle.run_id} {'is there already' if handle.existing else 'is started'}.")
        left = None if timeout is None else max(0.1, round(timeout - (monotonic() - began), 1))
        ending = await client.result(handle.run_id, timeout=left, on_incident=_tell_incident)
    return _tell_ending(ending, as_json=as_json, existing=handle.existing)


async def wait(
    run: str,
    /,
    *,
    timeout: Timeout = None,  # noqa: ASYNC109 - the user's
    as_json: AsJson = False,
) -> int:
    """
    Wait until a run is finished; exit 6 when it ends other than completed.

    Args:
        run: Its id.
    """
    run_id = UUID(run_id_of(run))
    async with Client(settings=Settings.load()) as client:
        with suppress(NotBegun):
            await client.status(run_id)  # an unknown run ends the command here, at once
        ending = await client.result(run_id, timeout=timeout, on_incident=_tell_incident)
    return _tell_ending(ending, as_json=as_json)


def _tell_incident(ending: Ending) -> None:
    """Say on stderr that the run waits for a person; this command goes on waiting."""
    if ending.incident is not None:
        text = ending.incident.text(str(ending.run_id))
        say(cell(f"Run {ending.run_id} waits for a person, {text}. Still waiting."))


def _tell_start(handle: Handle, *, as_json: bool) -> None:
    if not as_json:
        line(str(handle.run_id))
        return
    document(
        {
            "run_id": handle.run_id,
            "saga": handle.saga,
            "version": handle.version,
            "key": handle.key,
            "status": handle.status,
            "result": None,
            "error": None,
            "existing": handle.existing,
        }
    )


def _tell_ending(ending: Ending, *, as_json: bool, **more: Any) -> int:
    error = failure_json(ending.error) if ending.error else None
    if as_json:
        document(
            {
                "run_id": ending.run_id,
                "saga": ending.saga,
                "version": ending.version,
                "key": ending.key,
                "status": ending.status,
                "result": ending.result,
                "error": error,
                **more,
            }
        )
    else:
        line(f"{ending.run_id} {ending.status}")
        if ending.error:
            say(cell(f"{ending.error.code}: {ending.error.message}"))
    return 0 if ending.status is Status.COMPLETED else NOT_COMPLETED
