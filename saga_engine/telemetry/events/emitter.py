"""Hand each telemetry event to every observer."""

import traceback

from saga_engine.errors import SagaEngineError
from saga_engine.payload.guard import class_name
from saga_engine.telemetry.events.code_events import ObserverFailed
from saga_engine.telemetry.events.telemetry_event import Observer, TelemetryEvent


class Emitter:
    """Calls its observers with each telemetry event, in order; `Emitter()` has none."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers
        self._failed_observers: set[int] = set()

    def __call__(self, event: TelemetryEvent) -> None:
        """
        Emit *event*.

        An observer that raises affects neither the caller nor the other observers, which get an
        `ObserverFailed` for its first failure.
        """
        for index, observer in enumerate(self._observers):
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001 - observing must not harm the engine
                if index not in self._failed_observers:
                    self._failed_observers.add(index)
                    name = getattr(observer, "__qualname__", type(observer).__qualname__)
                    self(ObserverFailed(observer=name, problem=describe_error(error)))


def describe_error(error: BaseException) -> str:
    """
    Describe an exception for the field `problem`.

    Only errors of the engine keep their text: the text of others may quote a row or a payload.
    """
    if isinstance(error, SagaEngineError):
        return f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    location = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return class_name(error) + location
