"""`saga-engine start` and `wait`: client requests, which need only RabbitMQ."""

from contextlib import suppress
from time import monotonic
from typing import Annotated, Any
from uuid import UUID

from cyclopts import Parameter

from saga_engine.cli.database import parse_run_id
from saga_engine.cli.exit_status import EXIT_NOT_COMPLETED
from saga_engine.cli.json_argument import parse_json
from saga_engine.cli.output import AsJson, format_cell, print_json, print_line, print_stderr
from saga_engine.client import Client, RunHandle, RunResult
from saga_engine.errors import NotStarted
from saga_engine.protocol.failure import failure_json
from saga_engine.settings import Settings
from saga_engine.vocabulary import Status

Timeout = Annotated[float | None, Parameter(help="Seconds to wait; by default without limit.")]


async def start(  # noqa: PLR0913 - one for each option
    saga: str,
    /,
    *,
    input_argument: Annotated[
        str,
        Parameter(name="--input", allow_leading_hyphen=True, help="JSON, @FILE, or - for stdin."),
    ],
    key: Annotated[
        str | None, Parameter(help="A business key: the same key and input name the same run.")
    ] = None,
    version: Annotated[
        int | None, Parameter(help="By default the newest version that workers have.")
    ] = None,
    wait: Annotated[bool, Parameter(help="Wait until the run is finished.")] = False,
    timeout: Timeout = None,  # noqa: ASYNC109 - the user's
    as_json: AsJson = False,
) -> int:
    """
    Start a run; with --wait, exit 6 if it finishes other than completed.

    Args:
        saga: The name of the saga.
    """
    input_data = parse_json(input_argument, "--input")
    settings, started_at = Settings.load(), monotonic()
    if timeout is not None:
        client_timeout = min(timeout, settings.client_timeout)
        settings = settings.model_copy(update={"client_timeout": client_timeout})
    async with Client(settings=settings) as client:
        handle = await client.start(saga, input_data, key=key, version=version)
        if not wait:
            _print_started(handle, as_json=as_json)
            return 0
        if not as_json:
            print_stderr(
                f"Run {handle.run_id} {'exists already' if handle.existing else 'is started'}."
            )
        remaining = (
            None if timeout is None else max(0.1, round(timeout - (monotonic() - started_at), 1))
        )
        result = await client.result(
            handle.run_id, timeout=remaining, on_incident=_print_open_incident
        )
    return _print_result(result, as_json=as_json, existing=handle.existing)


async def wait(
    run: str,
    /,
    *,
    timeout: Timeout = None,  # noqa: ASYNC109 - the user's
    as_json: AsJson = False,
) -> int:
    """
    Wait until a run is finished; exit 6 if it finishes other than completed.

    Args:
        run: The run id.
    """
    run_id = UUID(parse_run_id(run))
    async with Client(settings=Settings.load()) as client:
        with suppress(NotStarted):
            await client.status(run_id)  # an unknown run ends the command here
        result = await client.result(run_id, timeout=timeout, on_incident=_print_open_incident)
    return _print_result(result, as_json=as_json)


def _print_open_incident(result: RunResult) -> None:
    """Print that the run waits for an operator; this command goes on waiting."""
    if result.incident is not None:
        incident_text = result.incident.text(str(result.run_id))
        print_stderr(
            format_cell(
                f"Run {result.run_id} waits for an operator, {incident_text}. Still waiting."
            )
        )


def _print_started(handle: RunHandle, *, as_json: bool) -> None:
    if not as_json:
        print_line(str(handle.run_id))
        return
    print_json(
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


def _print_result(result: RunResult, *, as_json: bool, **extra_fields: Any) -> int:
    error = failure_json(result.error) if result.error else None
    if as_json:
        print_json(
            {
                "run_id": result.run_id,
                "saga": result.saga,
                "version": result.version,
                "key": result.key,
                "status": result.status,
                "result": result.result,
                "error": error,
                **extra_fields,
            }
        )
    else:
        print_line(f"{result.run_id} {result.status}")
        if result.error:
            print_stderr(format_cell(f"{result.error.code}: {result.error.message}"))
    return 0 if result.status is Status.COMPLETED else EXIT_NOT_COMPLETED
