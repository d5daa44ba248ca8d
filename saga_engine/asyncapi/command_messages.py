"""
The commands of sagas and participants, the queues they arrive in, and their replies.

A saga sends its commands to an exchange and does not know who handles them: the address of such a
channel is the routing key. A participant has a queue.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from saga_engine.asyncapi.channels import (
    ACKNOWLEDGED,
    AMQP,
    PERSISTENT,
    add_message,
    channel_reference,
    message_of,
    queue_channel,
    routed_channel,
)
from saga_engine.asyncapi.components import Components, Document
from saga_engine.asyncapi.headers import command_headers, reply_headers
from saga_engine.participant.handler import Handler
from saga_engine.participant.participant import Participant
from saga_engine.protocol.topology import COMMANDS, REPLIES, participant_queue
from saga_engine.saga.definition import CommandSpec, Saga
from saga_engine.vocabulary import Direction, Outcome

CORRELATION_ID = {
    "description": "The AMQP property correlation_id, which a reply copies byte for byte.",
    "location": "$message.header#/correlation_id",
}
ERROR_SCHEMA: Document = {
    "type": "object",
    "description": "Why a command was rejected or failed.",
    "properties": {
        "code": {"type": "string", "minLength": 1, "maxLength": 128},
        "message": {"type": "string"},
        "details": {},
    },
    "required": ["code"],
}


@dataclass(frozen=True, slots=True)
class _CommandAndReplies:
    """A command and its replies, as references."""

    command: Document
    replies: Sequence[Document]


class CommandMessages:
    """
    Describes commands and replies; each method adds to *document*.

    Args:
        document: with `channels` and `operations`.
        components: of the document.
    """

    def __init__(self, document: Document, components: Components) -> None:
        self._channels = document["channels"]
        self._operations = document["operations"]
        self._components = components

    def add_saga(self, saga: Saga) -> None:
        """Describe what each step of a saga sends, and the replies that it accepts."""
        for step in saga.steps.values():
            for direction in Direction:
                spec = step.command_spec(direction)
                if spec is not None:
                    name = f"{saga.name}.v{saga.version}.{step.name}.{direction.value}"
                    title = f"{saga.name} {saga.version}: {direction.value} of step {step.name}"
                    self._add_sent(name, title, spec)

    def add_participant(self, participant: Participant) -> None:
        """Describe the queue of a participant, its commands, and the replies it sends."""
        queue = participant_queue(participant.name)
        for command, handler in participant.handlers.items():
            messages = self._of_handler(command, handler)
            self._add_to_channel(queue, messages.command, queue_channel(queue))
            self._add_operation(
                f"{participant.name}.{command}",
                {"action": "receive", "bindings": ACKNOWLEDGED},
                queue,
                messages,
            )

    def _add_sent(self, name: str, title: str, spec: CommandSpec) -> None:
        payload = self._components.payload(spec.mapping.payload_type.schema("serialization"))
        reply = self._components.payload(spec.reply_type.schema("validation"))
        messages = self._describe(spec.command, payload, reply)
        channel = f"{COMMANDS}/{spec.command}"
        self._add_to_channel(channel, messages.command, routed_channel(COMMANDS, spec.command))
        operation = {"action": "send", "title": title, "bindings": PERSISTENT}
        self._add_operation(name, operation, channel, messages)

    def _of_handler(self, command: str, handler: Handler) -> _CommandAndReplies:
        payload = self._components.payload(handler.payload_type.schema("validation"))
        result = self._components.payload(handler.result_type.schema("serialization"))
        if handler.compensated_command:
            # The answer to a compensation of a command that took no effect.
            result = {"anyOf": [result, {"type": "null"}]}
        return self._describe(command, payload, result)

    def _describe(self, command: str, payload: Document, result: Document) -> _CommandAndReplies:
        add_schema = self._components.add_schema
        of_command = add_schema("command-headers", command_headers())
        of_success = add_schema("success-headers", reply_headers([Outcome.SUCCEEDED.value]))
        refusals = [Outcome.REJECTED.value, Outcome.FAILED.value]
        of_refusal = add_schema("refusal-headers", reply_headers(refusals))
        error = add_schema("error", ERROR_SCHEMA)
        return _CommandAndReplies(
            self._message(command, command, payload, of_command),
            [
                self._message(f"{command}.succeeded", command, result, of_success),
                self._message(f"{command}.refused", command, error, of_refusal),
            ],
        )

    def _message(self, name: str, command: str, payload: Document, headers: Document) -> Document:
        return self._components.add_message(
            name,
            {
                "name": name,
                "contentType": "application/json",
                "correlationId": CORRELATION_ID,
                "headers": headers,
                "payload": payload,
                "bindings": {"amqp": {"messageType": command, **AMQP}},
            },
        )

    def _add_operation(
        self, name: str, operation: Document, channel: str, messages: _CommandAndReplies
    ) -> None:
        for each in messages.replies:
            self._add_to_channel(REPLIES, each, queue_channel(REPLIES))
        self._operations[name] = {
            **operation,
            "channel": channel_reference(channel),
            "messages": [message_of(channel, messages.command)],
            "reply": {
                "channel": channel_reference(REPLIES),
                "messages": [message_of(REPLIES, each) for each in messages.replies],
            },
        }

    def _add_to_channel(self, name: str, message: Document, channel: Document) -> None:
        add_message(self._channels.setdefault(name, channel), message)
