"""
How a broker says no: by closing the channel, or the connection (AMQP 0-9-1, section 1.2).

Codes and texts are RabbitMQ's, because clients and people match on them. Never a crash: whatever a
peer sends ends, at the worst, in one of these two for that peer alone.
"""


class AmqpException(Exception):
    """A reply code and its text; the connection adds the method it answers."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class ChannelException(AmqpException):
    """Closes the channel; its unacknowledged messages go back to their queues."""


class ConnectionException(AmqpException):
    """Closes the connection with all its channels."""


def not_found(kind: str, name: str) -> ChannelException:
    """404: no queue or exchange of that name."""
    return ChannelException(404, f"NOT_FOUND - no {kind} '{name}' in vhost '/'")


def precondition_failed(problem: str) -> ChannelException:
    """406: it is there and is otherwise, or cannot be as asked."""
    return ChannelException(406, f"PRECONDITION_FAILED - {problem}")


def access_refused(problem: str) -> ChannelException:
    """403: nobody may do that."""
    return ChannelException(403, f"ACCESS_REFUSED - {problem}")


def not_implemented(what: str) -> ConnectionException:
    """540: this broker does not do that."""
    return ConnectionException(540, f"NOT_IMPLEMENTED - {what}")
