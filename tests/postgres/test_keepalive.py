"""TCP keepalive on the sockets of the database connections."""

import socket
import sys

import pytest

from saga_engine.postgres import keepalive


def test_a_tcp_socket_is_probed():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        keepalive.enable_keepalive(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if sys.platform == "linux":
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            assert [sock.getsockopt(socket.IPPROTO_TCP, each) for each in options] == [
                keepalive.KEEPALIVE_IDLE,
                keepalive.KEEPALIVE_INTERVAL,
                keepalive.KEEPALIVE_PROBES,
            ]


@pytest.mark.parametrize("driver", [object(), None])
def test_a_driver_without_a_socket_is_left_alone(driver: object):
    keepalive.enable_keepalive_on_driver(driver)


def test_a_unix_socket_is_left_alone():
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        keepalive.enable_keepalive(sock)
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
