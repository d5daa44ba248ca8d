"""The whole AsyncAPI document, from what modules declare."""

from collections.abc import Sequence
from dataclasses import dataclass

from saga_engine.asyncapi.command_messages import CommandMessages
from saga_engine.asyncapi.components import Components, Document
from saga_engine.asyncapi.event_messages import EventMessages
from saga_engine.events.aggregates.aggregate import Aggregate
from saga_engine.events.feeds.feed import Feed
from saga_engine.participant.participant import Participant
from saga_engine.saga.definition import Saga

SPECIFICATION = "3.1.0"


@dataclass(frozen=True, slots=True)
class Declared:
    """What modules declare: valid, and of each kind in the order of its declaration."""

    sagas: Sequence[Saga]
    participants: Sequence[Participant]
    aggregates: Sequence[Aggregate]
    feeds: Sequence[Feed]


def describe(declared: Declared, title: str, version: str) -> Document:
    """
    Make an AsyncAPI document of all commands, replies and events.

    Args:
        declared: what to describe.
        title: of the application.
        version: of the application.
    """
    components = Components()
    document: Document = {
        "asyncapi": SPECIFICATION,
        "info": {"title": title, "version": version},
        "defaultContentType": "application/json",
        "channels": {},
        "operations": {},
    }
    commands = CommandMessages(document, components)
    for saga in declared.sagas:
        commands.add_saga(saga)
    for participant in declared.participants:
        commands.add_participant(participant)
    events = EventMessages(document, components, declared.aggregates)
    events.add_events()
    for feed in declared.feeds:
        events.add_feed(feed)
    document["components"] = {"messages": components.messages, "schemas": components.schemas}
    return document
