"""A receiver of webhooks on a port of localhost: it answers each request with 204."""

import asyncio
import sys

_END_OF_HEADERS = b"\r\n\r\n"
_LENGTH = b"content-length:"
_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Receiver(asyncio.Protocol):
    """One connection, which is kept open."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where answers are written to."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        self._received += data
        while _END_OF_HEADERS in self._received:
            headers, body = self._received.split(_END_OF_HEADERS, 1)
            length = int(headers.lower().split(_LENGTH, 1)[1].split(b"\r\n", 1)[0])
            if len(body) < length:
                return
            self._received = body[length:]
            self._transport.write(_ANSWER)


async def main(port: int) -> None:
    """Receive requests on a port of localhost."""
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
