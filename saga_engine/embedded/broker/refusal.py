"""
Errors that close a channel or a connection (AMQP 0-9-1, section 1.2).

Codes and texts are RabbitMQ's, because clients and people match on them.
"""


class AmqpException(Exception):
    """A reply code and a text; the connection adds the method that failed."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class ChannelException(AmqpException):
    """Closes the channel; its unacknowledged messages are requeued."""


class ConnectionException(AmqpException):
    """Closes the connection with all its channels."""


def not_found(kind: str, name: str) -> ChannelException:
    """404: there is no queue or exchange of that name."""
    return ChannelException(404, f"NOT_FOUND - no {kind} '{name}' in vhost '/'")


def precondition_failed(problem: str) -> ChannelException:
    """406: it exists with other properties, or the request is invalid."""
    return ChannelException(406, f"PRECONDITION_FAILED - {problem}")


def access_refused(problem: str) -> ChannelException:
    """403: the operation is not allowed."""
    return ChannelException(403, f"ACCESS_REFUSED - {problem}")


def not_implemented(what: str) -> ConnectionException:
    """540: this broker does not implement it."""
    return ConnectionException(540, f"NOT_IMPLEMENTED - {what}")
