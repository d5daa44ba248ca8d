"""
What stands for a message that cannot be read: a reason, a sentence, and the command it answers.

It is a value and not an exception, because a sender's mistake is not an error of the receiver: the
message is dead-lettered with it. The sentence never quotes the message.
"""

from dataclasses import dataclass

from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.token import CommandRef


@dataclass(frozen=True, slots=True)
class UnreadableMessage:
    """
    A message that cannot be read.

    `command_ref` is the command it replies to, when its correlation id is genuine: the participant
    processed that command, and its run must learn that the outcome is unknown.
    """

    reason: DeadLetterReason
    explanation: str
    command_ref: CommandRef | None = None
