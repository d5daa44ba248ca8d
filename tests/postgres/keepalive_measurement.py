"""
A connection whose cable is pulled while an answer is awaited, in a network of its own.

    unshare --net python -m tests.postgres.keepalive_measurement GAP LISTENS

Pulls it for GAP seconds, and prints whether the connection was found dead within LISTENS seconds.
"""

import asyncio
import fcntl
import json
import socket
import struct
import sys

from saga_engine.postgres.keepalive import enable_keepalive
from tests.kit.programs import sleep

SIOCSIFFLAGS, IFF_UP = 0x8914, 1


def network_link(*, connected):
    """The loopback device is the only one there is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh", b"lo", IFF_UP if connected else 0)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)


async def read_for(reader, seconds):
    try:
        async with asyncio.timeout(seconds):
            await reader.read(1)
    except TimeoutError as error:
        return error.errno is not None  # the kernel's has one
    except OSError:
        pass
    return True


async def main(gap_s, listens_s):
    network_link(connected=True)
    server = socket.create_server(("127.0.0.1", 0))  # its kernel accepts data that no program reads
    reader, writer = await asyncio.open_connection(*server.getsockname())
    enable_keepalive(writer.get_extra_info("socket"))
    writer.write(b"a question")
    await writer.drain()
    await sleep(0.5)  # in which it is acknowledged
    async with asyncio.TaskGroup() as group:
        listening = group.create_task(read_for(reader, listens_s))
        network_link(connected=False)
        done, _ = await asyncio.wait([listening], timeout=gap_s)
        if not done:
            network_link(connected=True)
    sys.stdout.write(json.dumps(listening.result()))
    sys.stdout.flush()
    writer.transport.abort()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), float(sys.argv[2])))
