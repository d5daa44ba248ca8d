"""
The start of a connection: login, negotiated limits, the virtual host.

A connection passes the client's methods in order to one object (AMQP 0-9-1, section 2.2.4). Errors
have RabbitMQ's codes and texts.
"""

import hmac
from collections.abc import Mapping
from typing import Final

from pamqp import base, commands
from pamqp.common import FieldTable

from saga_engine.embedded.broker.refusal import ConnectionException

CHANNEL_MAX: Final = 2047
FRAME_MAX: Final = 131_072
_MIN_FRAME_MAX: Final = 4096
_HEARTBEAT_INTERVAL: Final = 60  # Seconds, as RabbitMQ proposes.
_SERVER_PROPERTIES: Final[FieldTable] = {
    "product": "saga-engine development broker",
    "information": "In memory, for development and tests. It loses all messages when it stops.",
    "capabilities": {
        "publisher_confirms": True,
        "basic.nack": True,
        "consumer_cancel_notify": True,
        "connection.blocked": True,
        "authentication_failure_close": True,
        "per_consumer_qos": True,
        "exchange_exchange_bindings": False,
    },
}


class Handshake:
    """The handshake of one connection and what was negotiated."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self.username = ""
        self.frame_max = FRAME_MAX
        self.heartbeat_interval = 0
        self.supports_blocked_notification = False
        self.is_complete = False
        self._users = users
        self._expected_method: type[base.Frame] = commands.Connection.StartOk

    def start_method(self) -> base.Frame:
        """The first method that the broker sends, after the protocol header."""
        return commands.Connection.Start(0, 9, _SERVER_PROPERTIES, "PLAIN", "en_US")

    def respond(self, method: base.Frame) -> base.Frame | None:
        """
        Handle the client's next method; return the method to answer with.

        Raises:
            ConnectionException: a wrong password (403), wrong limits or an unknown virtual host
                (530), or a method out of order (503).
        """
        if not isinstance(method, self._expected_method):
            raise ConnectionException(503, f"COMMAND_INVALID - {method.name} is not expected")
        if isinstance(method, commands.Connection.StartOk):
            self._authenticate(method)
            self._expected_method = commands.Connection.TuneOk
            return commands.Connection.Tune(CHANNEL_MAX, FRAME_MAX, _HEARTBEAT_INTERVAL)
        if isinstance(method, commands.Connection.TuneOk):
            self._tune(method)
            self._expected_method = commands.Connection.Open
            return None
        assert isinstance(method, commands.Connection.Open), "the three methods are handled above"
        if method.virtual_host != "/":
            raise ConnectionException(530, f"NOT_ALLOWED - vhost {method.virtual_host} not found")
        self.is_complete = True
        return commands.Connection.OpenOk()

    def _authenticate(self, method: commands.Connection.StartOk) -> None:
        _, _, credentials = method.response.partition("\0")
        username, _, password = credentials.partition("\0")
        expected_password = self._users.get(username, "")
        user_exists = username in self._users
        password_matches = hmac.compare_digest(password.encode(), expected_password.encode())
        if method.mechanism != "PLAIN" or not (user_exists and password_matches):
            raise ConnectionException(
                403,
                "ACCESS_REFUSED - Login was refused using authentication mechanism"
                f" {method.mechanism}. For details see the broker logfile.",
            )
        self.username = username
        capabilities = (method.client_properties or {}).get("capabilities")
        if isinstance(capabilities, dict):
            self.supports_blocked_notification = bool(capabilities.get("connection.blocked"))

    def _tune(self, method: commands.Connection.TuneOk) -> None:
        limits = (
            ("channel_max", method.channel_max, 1, CHANNEL_MAX),
            ("frame_max", method.frame_max, _MIN_FRAME_MAX, FRAME_MAX),
        )
        for name, negotiated, lowest, highest in limits:
            if not lowest <= negotiated <= highest:
                raise ConnectionException(
                    530,
                    f"NOT_ALLOWED - negotiated {name} = {negotiated} is not within"
                    f" {lowest} and {highest}",
                )
        self.frame_max = method.frame_max
        self.heartbeat_interval = method.heartbeat
