"""
One webhook over HTTP, with httpx: a POST to a checked address, and little of the answer.

httpx's transport is used without its client, which would follow redirects, keep cookies and read
proxies from the environment.
"""

import asyncio
import ssl
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx

from saga_engine.events.feeds.webhook_answer import Answer, Verdict, read_answer
from saga_engine.events.feeds.webhook_request import WebhookRequest
from saga_engine.events.feeds.webhook_signature import WebhookSecrets
from saga_engine.events.feeds.webhook_target import (
    Address,
    InvalidTarget,
    TargetRules,
    WebhookTarget,
)
from saga_engine.lifecycle import AsyncResource
from saga_engine.settings import Settings

KEEPALIVE_SECONDS = 4.0
"""Less than the 5 s after which common servers (uvicorn, Node.js) close an idle connection."""


class WebhookClient(AsyncResource):
    """
    Sends requests to one webhook; `async with` opens it.

    Args:
        target: its URL.
        secrets: sign the requests.
        settings: timeouts, addresses that are allowed, and how much of an answer is read.
    """

    def __init__(self, target: WebhookTarget, secrets: WebhookSecrets, settings: Settings) -> None:
        self._target = target
        self._secrets = secrets
        self._settings = settings
        self._rules = TargetRules(settings.webhook_private_networks, settings.webhook_local_http)
        self._transport: httpx.AsyncHTTPTransport

    async def _open(self, resources: AsyncExitStack) -> None:
        connections = self._settings.webhook_concurrency
        transport = httpx.AsyncHTTPTransport(
            verify=ssl.create_default_context(),
            trust_env=False,
            limits=httpx.Limits(
                max_connections=connections,
                max_keepalive_connections=connections,
                keepalive_expiry=KEEPALIVE_SECONDS,
            ),
        )
        self._transport = await resources.enter_async_context(transport)

    async def post(self, request: WebhookRequest) -> Answer:
        """Send a request and wait for its answer, both within `webhook_timeout`."""
        deadline = asyncio.get_running_loop().time() + self._settings.webhook_timeout
        try:
            addresses = await self._resolve()
        except InvalidTarget as error:
            return Answer(Verdict.UNAVAILABLE, f"{error}.")
        except OSError:  # a TimeoutError, too
            problem = "has a host that cannot be resolved. Correct its name, or the name server."
            return Answer(Verdict.UNAVAILABLE, problem)
        for address in addresses[:-1]:
            with suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await self._post_to(address, request, deadline)
            # Another address of the host may be reachable.
        try:
            return await self._post_to(addresses[-1], request, deadline)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return Answer(Verdict.UNAVAILABLE, _connection_problem(error))

    async def _resolve(self) -> list[Address]:
        async with asyncio.timeout(self._settings.webhook_connect_timeout):
            return await self._target.resolve(self._rules)

    async def _post_to(self, address: Address, request: WebhookRequest, deadline: float) -> Answer:
        """
        Send a request to one address.

        Raises:
            ConnectError, ConnectTimeout: of httpx; nothing was sent.
        """
        attempt = _Attempt()
        answer: Answer | None = None
        try:
            async with asyncio.timeout_at(deadline):
                sent = self._http(address, request, attempt)
                response = await self._transport.handle_async_request(sent)
                try:
                    retry_after = response.headers.get("retry-after")
                    answer = read_answer(response.status_code, retry_after, time.time())
                    await self._drain(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            if not attempt.is_sent:
                raise httpx.ConnectTimeout("no time is left") from None
            problem = f"did not answer within {self._settings.webhook_timeout:g} s"
            fix = "(webhook_timeout). Let it answer first, and do its work afterwards."
            return answer or Answer(Verdict.REFUSED, f"{problem} {fix}")
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise
        except httpx.TransportError as error:
            problem = f"ended the connection without an answer ({type(error).__name__})."
            return answer or Answer(Verdict.REFUSED, f"{problem} The log of the receiver says why.")
        finally:
            await attempt.close()
        return answer

    def _http(
        self, address: Address, request: WebhookRequest, attempt: "_Attempt"
    ) -> httpx.Request:
        host = f"[{address}]" if address.version == 6 else str(address)
        target, connect = self._target, self._settings.webhook_connect_timeout
        signature = self._secrets.sign(request.id, int(time.time()), request.body)
        return httpx.Request(
            "POST",
            f"{target.scheme}://{host}:{target.port}{target.path}",
            headers={
                "host": target.authority,
                "user-agent": "saga-engine",
                **request.headers,
                **signature,
            },
            content=request.body,
            extensions={
                # The certificate is for the name, and the connection goes to the checked address.
                "sni_hostname": target.host,
                "timeout": {"connect": connect},
                "trace": attempt.trace,
            },
        )

    async def _drain(self, response: httpx.Response) -> None:
        """Read a short body, so that the connection can be used again; a long one is cut off."""
        size = 0
        async for part in response.aiter_raw():
            size += len(part)
            if size > self._settings.webhook_max_response_bytes:
                return


class _Attempt:
    """Whether a request began to be sent: what fails before is not the fault of its event."""

    def __init__(self) -> None:
        self.is_sent = False
        self._opened: Any = None  # the connection that was made for it

    async def trace(self, name: str, result: Mapping[str, Any]) -> None:
        """Take what the transport does; see the extension "trace" of httpx."""
        if name == "connection.connect_tcp.complete":
            self._opened = result["return_value"]
        if name.startswith("http11."):
            self.is_sent = True

    async def close(self) -> None:
        """Close a connection whose handshake was cancelled: httpcore 1.0 leaves it open."""
        if self._opened and not self.is_sent:
            await self._opened.aclose()


def _connection_problem(error: BaseException) -> str:
    """Say why no connection was made; httpx keeps the error of TLS as a cause."""
    cause: BaseException | None = error
    while cause is not None and not _is_failure_of_tls(cause):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = cause.verify_message.rstrip(".")
        fix = "Renew it; a private authority is named in SSL_CERT_FILE."
        return f"shows a certificate that is not valid: {reason}. {fix}"
    if cause is not None:
        return "does not agree on TLS. Correct the port, or TLS of the receiver."
    return "is unreachable: no connection was made. Start the receiver, or correct the URL."


def _is_failure_of_tls(error: BaseException) -> bool:
    """Whether a handshake failed; one that waits for bytes is in SSLWantReadError, too."""
    return isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLWantReadError)
