"""
A real receiver of webhooks: HTTPS in threads, which verifies with another library, or misbehaves.

It verifies each request with `standardwebhooks` and reads it with the SDK of CloudEvents. A request
that does not verify is answered with 401.
"""

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cloudevents.core.bindings.http import HTTPMessage, from_binary_event
from cloudevents.core.formats.json import JSONFormat
from standardwebhooks import Webhook, WebhookVerificationError

from saga_engine.events import Recorded
from tests.kit.certificates import KeyPair
from tests.kit.programs import wait_until_true

SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSByZWNlaXZlciwgMzIgYnl0ZXMh"


@dataclass(frozen=True)
class WebhookDelivery:
    """A request that was verified: its headers in lower case, and its body."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> Any:
        """The event, as the SDK of CloudEvents reads it."""
        names = {name: value for name, value in self.headers.items() if name.startswith("ce-")}
        given = {**names, "content-type": self.headers["content-type"]}
        return from_binary_event(HTTPMessage(given, self.body), JSONFormat())

    @property
    def stream(self) -> str:
        return str(self.event.get_subject())


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    receiver: "WebhookReceiver"

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        body = self.rfile.read(length)
        if len(body) < length:  # the sender was killed meanwhile
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        delivery = WebhookDelivery(headers, body)
        with self.receiver.lock:
            self.receiver.requests.append(delivery)
        try:
            Webhook(self.receiver.secret).verify(body, dict(headers))
        except WebhookVerificationError:
            respond(401)(self)
            return
        behaviour = self.receiver.behave(delivery)
        if behaviour is ACCEPT:
            with self.receiver.lock:
                self.receiver.accepted.append(delivery)
        behaviour(self)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


Behaviour = Callable[[Handler], None]


def respond(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Answer with a status; `retry_after` is a header of that name."""

    def answer(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


ACCEPT = respond(204)


def reset(handler: Handler) -> None:
    """End the connection with RST and without an answer."""
    handler.close_connection = True
    plain = handler.connection
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    plain.close()


def stay_silent(handler: Handler) -> None:
    """Keep the connection without an answer, as a half-open one is."""
    handler.receiver.closing.wait()
    handler.close_connection = True


def answer_garbage(handler: Handler) -> None:
    """Answer with something that is not HTTP."""
    handler.wfile.write(b"\x00\xff" * 100 + b"\r\n\r\n")
    handler.close_connection = True


def answer_endlessly(status: int) -> Behaviour:
    """Answer with a body that does not end."""

    def answer(handler: Handler) -> None:
        handler.send_response(status)
        handler.end_headers()
        handler.close_connection = True
        try:
            while not handler.receiver.closing.is_set():
                handler.wfile.write(b"x" * 65_536)
        except OSError:
            handler.receiver.cut_off.set()

    return answer


def send_endless_headers(handler: Handler) -> None:
    """Answer with headers that do not end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    handler.close_connection = True
    try:
        while not handler.receiver.closing.is_set():
            handler.wfile.write(b"x-more: " + b"x" * 60_000 + b"\r\n")
    except OSError:
        handler.receiver.cut_off.set()


@dataclass
class WebhookReceiver:
    """
    What was received.

    `requests` are all, `accepted` those that were answered with 204. `behave` chooses the answer.
    """

    url: str
    secret: str = SECRET
    behave: Callable[[WebhookDelivery], Behaviour] = field(default=lambda _: ACCEPT)
    requests: list[WebhookDelivery] = field(default_factory=list)
    accepted: list[WebhookDelivery] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)
    cut_off: threading.Event = field(default_factory=threading.Event)

    @property
    def ids(self) -> set[str]:
        with self.lock:
            return {each.id for each in self.accepted}

    async def wait_for(self, count: int) -> None:
        """Wait until different events have been accepted, so many."""

        async def arrived() -> bool:
            return len(self.ids) >= count

        await wait_until_true(arrived, interval=0.01)

    async def wait_for_requests(self, count: int) -> None:
        """Wait for requests, accepted or not."""

        async def arrived() -> bool:
            return len(self.requests) >= count

        await wait_until_true(arrived, interval=0.01)

    def check(self, events: Sequence[Recorded]) -> None:
        """Every event was accepted, in the order of its stream; the others are repetitions."""
        assert self.ids == {str(each.id) for each in events}
        expected: dict[str, list[str]] = {}
        for event in events:
            expected.setdefault(event.stream, []).append(str(event.id))
        first: dict[str, list[str]] = {}
        for delivery in self.accepted:
            seen = first.setdefault(delivery.stream, [])
            if delivery.id not in seen:
                seen.append(delivery.id)
        assert first == expected
        by_id = {str(each.id): each for each in events}
        for delivery in self.accepted:
            assert json.loads(delivery.body) == by_id[delivery.id].data
            assert delivery.event.get_id() == delivery.id


@contextmanager
def running_receiver(pair: KeyPair | None) -> Iterator[WebhookReceiver]:
    """A receiver on a free port of localhost; without a certificate over http."""

    class ReceivingHandler(Handler):
        """Of this receiver."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), ReceivingHandler)
    server.daemon_threads = True
    if pair:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    scheme = "https" if pair else "http"
    receiver = WebhookReceiver(f"{scheme}://localhost:{server.server_address[1]}/hook")
    ReceivingHandler.receiver = receiver
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
