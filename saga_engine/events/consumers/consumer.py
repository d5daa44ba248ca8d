"""
What the author declares: a consumer, where its events come from, and a function for each event.

    billing = Consumer("billing", source=from_queue())

    @billing.on(OrderPlaced)
    async def invoice(event: OrderPlaced, received: Received, connection: AsyncConnection) -> None:
        await connection.execute(...)
"""

import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from saga_engine.errors import DefinitionError, raise_or_collect
from saga_engine.events.consumers.received import Received
from saga_engine.events.consumers.source_options import SourceOptions
from saga_engine.events.event_store.event_types import event_code_call, event_type_of_others
from saga_engine.events.handlers.event_handler import (
    EventHandler,
    check_signature,
    content_model,
    named_event,
    require_event,
    require_no_result,
)
from saga_engine.events.handlers.on_poison import OnPoison
from saga_engine.payload.mapping import source_location_of

Function = TypeVar("Function", bound=Callable[..., Any])


class Consumer:
    """
    A service's part that acts on published events: each takes effect once in its database.

    Args:
        name: lower case, digits, `-` and `_`; at most 64 characters. What it has consumed is stored
            under this name.
        source: where its events come from, see `from_queue`.
        on_poison: whether an event that can never be applied stops its partition, or only its
            stream.
    """

    def __init__(
        self,
        name: str,
        *,
        source: SourceOptions,
        on_poison: OnPoison | str = OnPoison.STOP,
    ) -> None:
        frame = sys._getframe(1)  # noqa: SLF001 - the only way to the line a constructor is called on
        self.source_location = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        self.name = name
        self.source = source
        self.on_poison = on_poison
        self.handlers: dict[str, EventHandler] = {}
        self.has_invalid_declarations = False

    def __repr__(self) -> str:
        return f"Consumer({self.name!r}, source={self.source!r}, events={list(self.handlers)})"

    def on(self, event: type | str) -> Callable[[Function], Function]:
        """
        Declare what an event causes.

        The decorated async function is called with the event, its `Received` and a connection. What
        it writes over the connection is committed together with the note that the event was
        consumed. Annotate its result with None.

        Args:
            event: the class of an event that an aggregate declares; or a type by its name, when
                another program declares it. Then the function's first parameter is annotated with a
                model, which reads every version and ignores fields that it does not have; or with
                dict[str, Any], for the data as JSON.

        Raises:
            DefinitionError: the class is not an event, the function does not fit, or the event has
                a function already.
        """
        require_event(event)

        def decorate(function: Function) -> Function:
            try:
                self._add(event, function)
            except DefinitionError as error:
                self.has_invalid_declarations = True
                raise_or_collect(error)
            return function

        return decorate

    def _add(self, event: type | str, function: Callable[..., Any]) -> None:
        location = source_location_of(function, "@....on(Event)")
        name, event_type = named_event(event, location)
        if not inspect.iscoroutinefunction(function):
            raise DefinitionError(
                f"{function.__name__} is not an async function.",
                location=location,
                fix="Declare it with async def; call blocking code with asyncio.to_thread.",
            )
        # Of an event of another program the model is in the annotation only.
        model = None if event_type else content_model(function, location)
        expected = model or event
        hints = check_signature(function, expected, location, is_sql=True, record=Received)
        require_no_result(function, hints, location)
        if model is not None:
            event_type = event_type_of_others(model, name, location)
        if other := self.handlers.get(name):
            raise DefinitionError(
                f"Consumer {self.name!r} has two functions for {name!r}, the other at"
                f" {other.call.source_location}.",
                location=location,
                fix="Keep one, which calls both.",
            )
        self.handlers[name] = EventHandler(
            event_name=name,
            event_type=event_type,
            function=function,
            call=event_code_call(function.__name__, location, name),
            is_sql=True,
            result=None,
        )
