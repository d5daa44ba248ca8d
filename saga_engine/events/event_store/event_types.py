"""
The type of an event: its name, the version of its schema, its model, and what reads older versions.

A model is declared once, with a name. From then on its class says which event it is: when it is
appended, folded or projected. Events are never rewritten: one that an older version of the code
wrote passes through an upcaster for each version that came after it, then is read as the newest.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from functools import lru_cache
from typing import Any

from saga_engine.errors import DefinitionError
from saga_engine.events.event_store.recorded import (
    EventData,
    Recorded,
    copied_data,
    unreadable,
)
from saga_engine.payload.guard import (
    NO_TIME_LIMIT,
    CallTimeLimit,
    UserCodeCall,
    UserCodeError,
    call_user_code,
)
from saga_engine.payload.mapping import declared_type
from saga_engine.payload.payload import PayloadError, PayloadType, type_name
from saga_engine.schemas.compatibility import VersionSchema
from saga_engine.schemas.declared_schema import version_schema
from saga_engine.vocabulary import Json

_EVENT_NAME_PATTERN = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z", re.ASCII)
MAX_EVENT_NAME_BYTES = 127  # it becomes part of a routing key, which has at most 255 bytes
EVENT_NAME_RULE = (
    'Use words of letters, digits, - and _ with dots between them, such as "order-placed", at most'
    f" {MAX_EVENT_NAME_BYTES} bytes."
)
MAX_SCHEMA_VERSION = 1_000
"""Each version but the newest needs an upcaster, so there are few."""

_CACHED_SCHEMAS = 1024
"""Events whose JSON Schemas are kept; a module declares tens."""

UpcastFunction = Callable[[dict[str, Any]], dict[str, Any]]

_DECLARATION = "__saga_engine_event_type__"
"""The attribute of a model's class; not a table of all models, which would keep them alive."""


@dataclass(frozen=True, slots=True)
class Upcaster:
    """A function from the data of one version of an event to the data of the next version."""

    function: UpcastFunction
    call: UserCodeCall


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EventType:
    """
    A declared event.

    Args:
        name: `order-placed`: letters, digits, `-`, `_` and dots, at most 127 bytes.
        version: the newest version of its schema, from 1; events are written with it.
        model: the class of its content.
        payload_type: reads and writes that class.
        model_call: names that class in errors and for the time limit.
        source_location: `file:line` of the declaration.
        upcasters: by the version that they read.
        reads_any_version: whether the model reads the data of every version, because another
            program declares the event.
    """

    name: str
    version: int
    model: type
    payload_type: PayloadType
    model_call: UserCodeCall
    source_location: str
    upcasters: dict[int, Upcaster]
    reads_any_version: bool = False

    @property
    def missing_versions(self) -> list[int]:
        """The older versions that no upcaster reads."""
        return [each for each in range(1, self.version) if each not in self.upcasters]

    def write(self, event: Any, time_limit: CallTimeLimit = NO_TIME_LIMIT) -> EventData:
        """
        Turn an instance of the model into what is stored.

        Raises:
            PayloadError: it would be read back altered, or holds what cannot be stored.
            UserCodeError: the author's serializer raised, or was interrupted.
        """
        data = call_user_code(time_limit, self.model_call, self.payload_type.write, event)
        _, fingerprint = schema_of_event(self)
        return EventData(self.name, self.version, data, fingerprint)

    def read_data(self, data: Json, time_limit: CallTimeLimit = NO_TIME_LIMIT) -> Any:
        """
        Turn data of the newest version into an instance of the model.

        Raises:
            PayloadError: it does not fit.
            UserCodeError: the author's validator raised, or was interrupted.
        """
        return call_user_code(time_limit, self.model_call, self.payload_type.read, data)

    def read(self, recorded: Recorded, time_limit: CallTimeLimit = NO_TIME_LIMIT) -> Any:
        """
        Turn a stored event of this type, of any version, into an instance of the model.

        Raises:
            UnreadableEvent: it has a newer version, does not fit the model, or an upcaster failed.
        """
        try:
            is_newest = self.reads_any_version or recorded.schema_version == self.version
            if is_newest and (stored := recorded.stored_json()):
                # Not `data`, which would have to be written as JSON again.
                read = self.payload_type.read_text
                return call_user_code(time_limit, self.model_call, read, stored)
            return self.read_data(self._newest_data(recorded, time_limit), time_limit)
        except PayloadError as error:
            fix = self._data_fix(recorded.schema_version)
            raise unreadable(recorded, f"its data {error}", fix) from None
        except UserCodeError as error:
            problem = f"{error.call.function} {error.text}{error.detail}"
            fix = f"Correct {error.call.source_location}."
            # For a traceback in the caller's process: what the author's code raised.
            raise unreadable(recorded, problem, fix) from error.__context__

    def _data_fix(self, version: int) -> str:
        """What to do if data of that version, after its upcasters, does not fit the model."""
        model, newest = f"{type_name(self.model)} ({self.source_location})", self.version
        if self.reads_any_version:
            retry = "saga-engine consumers retry CONSUMER --reason TEXT"
            return f"Correct {model}, deploy it, then `{retry}`."
        if version < newest and (last := self.upcasters.get(newest - 1)):
            call = last.call
            return f"Correct {call.function} ({call.source_location}): it gives version {newest}."
        return (
            f"Let {model} read it: a new field needs a default. Or raise the version to"
            f" {newest + 1} and declare an upcast from version {newest}; stored events are not"
            " changed."
        )

    def _newest_data(self, recorded: Recorded, time_limit: CallTimeLimit) -> Json:
        version = recorded.schema_version
        if self.reads_any_version or version == self.version:
            return recorded.data
        if version > self.version:
            problem = f"it has version {version}, and this code knows up to {self.version}"
            fix = f"Deploy the code that declares version {version} of {self.name!r}."
            raise unreadable(recorded, problem, fix)
        data = copied_data(recorded)  # an upcaster may alter it
        for each in range(version, self.version):
            data = self._upcast(recorded, each, data, time_limit)
        return data

    def _upcast(
        self, recorded: Recorded, version: int, data: Any, time_limit: CallTimeLimit
    ) -> Json:
        upcaster = self.upcasters.get(version)
        if upcaster is None:
            problem = f"no upcast from version {version} is declared"
            fix = f'Declare one: @....upcast("{self.name}", version={version}).'
            raise unreadable(recorded, problem, fix)
        upcasted: Any = call_user_code(time_limit, upcaster.call, upcaster.function, data)
        if not isinstance(upcasted, dict):
            problem = f"{upcaster.call.function} returned a {type_name(type(upcasted))}"
            fix = f"Return a dict at {upcaster.call.source_location}."
            raise unreadable(recorded, problem, fix)
        return upcasted


@lru_cache(_CACHED_SCHEMAS)
def schema_of_event(event_type: EventType) -> tuple[VersionSchema, str]:
    """Return the schema of an event, and its fingerprint; pydantic makes it once."""
    return version_schema(event_type.version, event_type.payload_type)


def event_code_call(function: str, source_location: str, event_or_command: str) -> UserCodeCall:
    """Name a call into the author's code that belongs to no run."""
    return UserCodeCall(
        saga="",
        run_id="",
        step="",
        direction=None,
        command=event_or_command,
        function=function,
        source_location=source_location,
    )


def event_type_of(model: object) -> EventType | None:
    """Give the declared event of a class; None for any other object."""
    if not isinstance(model, type):
        return None
    return vars(model).get(_DECLARATION)  # a subclass is another event


def is_event_name(name: object) -> bool:
    """Whether an event can have that name, with a declaration or without; see EVENT_NAME_RULE."""
    return (
        isinstance(name, str)
        and _EVENT_NAME_PATTERN.match(name) is not None
        and len(name) <= MAX_EVENT_NAME_BYTES
    )


def declare_event_type(model: Any, name: Any, version: Any, location: str) -> EventType:
    """
    Declare the event that a class is.

    The same declaration, made again because its module is reloaded, replaces the first.

    Args:
        model: the class of its content, a pydantic model or a dataclass.
        name: see EventType.
        version: see EventType.
        location: `file:line` of the declaration.

    Raises:
        DefinitionError: an argument does not fit, or the class is declared already.
    """
    if not is_event_name(name):
        raise DefinitionError(
            f"{str(name)[:80]!r} is not the name of an event.",
            location=location,
            fix=EVENT_NAME_RULE,
        )
    if not _is_schema_version(version):
        raise DefinitionError(
            f"Event {name!r} has version={version!r}.",
            location=location,
            fix=f"Count versions from 1, at most {MAX_SCHEMA_VERSION}.",
        )
    payload_type = model_type(model, f"The content of event {name!r}", location)
    other = event_type_of(model)
    if other is not None and other.source_location != location:
        raise DefinitionError(
            f"{model.__name__} is already event {other.name!r}, declared at"
            f" {other.source_location}.",
            location=location,
            fix="Give each event a class of its own; a subclass is enough.",
        )
    event_type = EventType(
        name=name,
        version=version,
        model=model,
        payload_type=payload_type,
        model_call=event_code_call(type_name(model), location, name),
        source_location=location,
        upcasters={},
    )
    setattr(model, _DECLARATION, event_type)
    return event_type


def event_type_of_others(model: Any, name: str, location: str) -> EventType:
    """
    Make what reads an event that another program declares, in every version.

    Args:
        model: the class of what is read of its content.
        name: of the event.
        location: `file:line` of what reads it.

    Raises:
        DefinitionError: the class is not lossless as JSON.
    """
    return EventType(
        name=name,
        version=1,
        model=model,
        payload_type=model_type(model, f"The content of event {name!r}", location),
        model_call=event_code_call(type_name(model), location, name),
        source_location=location,
        upcasters={},
        reads_any_version=True,
    )


def model_type(model: Any, description: str, location: str) -> PayloadType:
    """
    Make the payload type of a class whose instances say what they are.

    Raises:
        DefinitionError: it is neither a pydantic model nor a dataclass, or not lossless as JSON.
    """
    if not isinstance(model, type) or not (is_dataclass(model) or hasattr(model, "model_fields")):
        raise DefinitionError(
            f"{description} is {type_name(model)}, which is not a class of its own.",
            location=location,
            fix="Use a pydantic model or a dataclass.",
        )
    return declared_type(model, description, location)


def add_upcaster(
    event_type: EventType, version: Any, function: UpcastFunction, location: str
) -> None:
    """
    Declare what reads one older version of an event.

    Raises:
        DefinitionError: that version is not an older one, or has an upcaster already.
    """
    name = event_type.name
    if not _is_schema_version(version) or version >= event_type.version:
        raise DefinitionError(
            f"The upcaster of {name!r} reads version={version!r}, and the newest version is"
            f" {event_type.version}.",
            location=location,
            fix="Give the version that it reads; it returns data of the next version.",
        )
    other = event_type.upcasters.get(version)
    if other is not None:
        raise DefinitionError(
            f"Version {version} of {name!r} has two upcasters, the other at"
            f" {other.call.source_location}.",
            location=location,
            fix="Keep one.",
        )
    call = event_code_call(function.__name__, location, name)
    event_type.upcasters[version] = Upcaster(function, call)


def missing_upcasters(event_types: Sequence[EventType]) -> list[DefinitionError]:
    """Give an error for each event of which an older version has no upcaster."""
    return [
        DefinitionError(
            f"Event {each.name!r} has version {each.version}, and nothing reads version"
            f" {' and '.join(map(str, missing[:3]))}.",
            location=each.source_location,
            fix=f'Declare @....upcast("{each.name}", version={missing[0]}).',
        )
        for each in event_types
        if (missing := each.missing_versions)
    ]


def _is_schema_version(version: object) -> bool:
    return type(version) is int and 1 <= version <= MAX_SCHEMA_VERSION
