"""
Registers the schemas of commands and replies when a worker starts.

The runs in flight need the worker, so a problem is reported as SchemaBroken and stops nothing.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

from saga_engine.errors import StoreError, TooManySchemas
from saga_engine.saga.definition import Saga
from saga_engine.schemas.registration import register
from saga_engine.schemas.saga_schemas import schemas_of_saga
from saga_engine.settings import Settings
from saga_engine.telemetry.events import Emitter, SchemaBroken

Begin: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]
"""Begins a transaction of the worker's database."""

_REGISTER = (
    "Find out with `saga-engine schemas check MODULE`. The worker registers them the next time that"
    " it starts."
)


async def register_message_schemas(
    begin: Begin, sagas: Sequence[Saga], settings: Settings, emit: Emitter
) -> None:
    """Register the schemas of each saga in a transaction of its own."""
    for saga in sagas:
        try:
            await _register(begin, saga, settings, emit)
        except TooManySchemas as error:
            emit(SchemaBroken(subject=error.subject, problem=error.problem, fix=error.fix))
        except Exception as error:  # noqa: BLE001 - the author's schema functions may raise anything
            problem = f"The schemas of {saga.name} were not registered: {_reason(error)}"
            emit(SchemaBroken(subject=saga.name, problem=problem, fix=_REGISTER))
            if isinstance(error, StoreError):
                return  # each other saga would wait as long for the same


async def _register(begin: Begin, saga: Saga, settings: Settings, emit: Emitter) -> None:
    declared = [*schemas_of_saga(saga)]
    async with begin() as tx:
        breaks = await register(tx, declared, settings)
    for each in breaks:
        subject = each.declared.subject
        emit(SchemaBroken(subject=subject, problem=each.problem, fix=each.fix))


def _reason(error: Exception) -> str:
    # The text of an error that is not ours may quote values.
    return str(error) if isinstance(error, StoreError) else f"{type(error).__name__}."
