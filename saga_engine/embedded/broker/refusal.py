"""
How a broker says no: by closing the channel, or the connection (AMQP 0-9-1, section 1.2).

Codes and texts are RabbitMQ's, because clients and people match on them. Never a crash: whatever a
peer sends ends, at the worst, in one of these two for that peer alone.
"""


class Refusal(Exception):
    """A reply code and its text; the connection adds the method it answers."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class ChannelRefusal(Refusal):
    """Closes the channel; its unacknowledged messages go back to their queues."""


class ConnectionRefusal(Refusal):
    """Closes the connection with all its channels."""


def not_found(kind: str, name: str) -> ChannelRefusal:
    """404: no queue or exchange of that name."""
    return ChannelRefusal(404, f"NOT_FOUND - no {kind} '{name}' in vhost '/'")


def precondition_failed(problem: str) -> ChannelRefusal:
    """406: it is there and is otherwise, or cannot be as asked."""
    return ChannelRefusal(406, f"PRECONDITION_FAILED - {problem}")


def access_refused(problem: str) -> ChannelRefusal:
    """403: nobody may do that."""
    return ChannelRefusal(403, f"ACCESS_REFUSED - {problem}")


def not_implemented(what: str) -> ConnectionRefusal:
    """540: this broker does not do that."""
    return ConnectionRefusal(540, f"NOT_IMPLEMENTED - {what}")
