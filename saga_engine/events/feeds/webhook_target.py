"""
Where a webhook may be sent: the rules for its URL, and for the addresses that its host resolves to.

A URL that leads into the own network lets the feed send requests that only the inside may send, to
a cloud's metadata service for example (server-side request forgery). The host is resolved once for
a request, every address is checked, and the connection goes to a checked one: a second look-up
could give another (DNS rebinding).
"""

import asyncio
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Self
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

HTTPS_PORT = 443
MIN_OTHER_PORT = 1024
"""Below are mail, name and login services, which a request can be made to look like."""

MAX_URL_CHARACTERS = 2_048
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")

_NEVER = [
    *map(ip_network, ("169.254.0.0/16", "fe80::/10", "0.0.0.0/8", "::/128")),
    *map(ip_network, ("fd00:ec2::254/128", "fd20:ce::254/128")),
]
"""Addresses at which clouds have their metadata, link-local ones too; no setting allows them."""
_TRANSLATED = [
    *map(ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "fec0::/10")),
    *map(ip_network, ("::/96", "::ffff:0:0:0/96", "192.88.99.0/24")),
]
"""
IPv6 addresses with an IPv4 address in them (NAT64, 6to4, Teredo, SIIT, IPv4-compatible) and of
sites, and IPv4 addresses of relays to IPv6.
"""
_SPECIAL = [*map(ip_network, ("192.0.0.0/24", "3fff::/20", "5f00::/16"))]
"""Of protocols, documentation and segment routing; Python counts some of them as global."""


class InvalidTarget(ValueError):
    """A URL, or an address of its host, is not allowed; the text ends with the next action."""


@dataclass(frozen=True, slots=True)
class TargetRules:
    """
    What settings allow beside public https.

    Args:
        private_networks: networks whose addresses are allowed although they are not public.
        local_http: whether http:// is allowed for localhost, and its addresses.
    """

    private_networks: Sequence[Network] = ()
    local_http: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookTarget:
    """
    The parts of a webhook's URL.

    Args:
        scheme: https, or http for localhost.
        host: as it is written; a name or an address.
        port: where the server listens.
        path: with the query; begins with `/`. It may hold a token, so it is not shown.
    """

    scheme: str
    host: str
    port: int
    path: str = field(repr=False)

    @classmethod
    def parse(cls, url: object) -> Self:
        """
        Read a URL.

        Raises:
            InvalidTarget: it can never be a webhook.
        """
        if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
            raise InvalidTarget("has no URL of printable ASCII characters. Encode others with %")
        if len(url) > MAX_URL_CHARACTERS:
            raise InvalidTarget(
                f"has a URL of more than {MAX_URL_CHARACTERS} characters. Shorten it"
            )
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise InvalidTarget("has a URL that cannot be read. Write https://host/path") from None
        _check_parts(parts.scheme, host, has_user="@" in parts.netloc, has_fragment="#" in url)
        default_port = HTTPS_PORT if parts.scheme == "https" else 80
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(scheme=parts.scheme, host=host, port=port or default_port, path=path)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """The host and the port as in a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default_port = HTTPS_PORT if self.scheme == "https" else 80
        return host if self.port == default_port else f"{host}:{self.port}"

    async def resolve(self, rules: TargetRules) -> list[Address]:
        """
        Resolve the host now, and check every address that it has.

        Raises:
            OSError: the host cannot be resolved.
            InvalidTarget: a rule does not allow the scheme, the port or one of the addresses.
        """
        self._check(rules)
        found = await asyncio.get_running_loop().getaddrinfo(
            self.host, self.port, type=socket.SOCK_STREAM
        )
        addresses = [
            *dict.fromkeys(ip_address(str(each[4][0]).partition("%")[0]) for each in found)
        ]
        for each in addresses:
            if not is_allowed(each, rules):
                raise InvalidTarget(
                    f"has host {self.host}, which resolves to {each}, and that is not a public"
                    " address. Correct the URL or the name; if the receiver is in a network of"
                    " yours, name that network in webhook_private_networks"
                )
        return addresses

    def _check(self, rules: TargetRules) -> None:
        if self.scheme == "http" and not rules.local_http:
            raise InvalidTarget(
                "has an http:// URL. Use https://, or webhook_local_http to develop"
            )
        if self.port != HTTPS_PORT and self.port < MIN_OTHER_PORT and self.scheme == "https":
            raise InvalidTarget(
                f"has port {self.port}. Use {HTTPS_PORT}, or one from {MIN_OTHER_PORT}"
            )


def is_allowed(address: Address, rules: TargetRules) -> bool:
    """Whether a connection may be made to an address."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if _is_in(address, _NEVER) or address.is_multicast:
        return False
    if _is_in(address, rules.private_networks):
        return True
    if address.is_loopback:
        return rules.local_http
    return address.is_global and not _is_in(address, (*_TRANSLATED, *_SPECIAL))


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in each for each in networks)  # of another version: not in it


def _check_parts(scheme: str, host: str, *, has_user: bool, has_fragment: bool) -> None:
    if scheme not in ("https", "http"):
        raise InvalidTarget("has a URL that is not https://. Write https://host/path")
    if scheme == "http" and host not in LOCAL_HOSTS:
        raise InvalidTarget("has an http:// URL. Use https://; only localhost may have http://")
    if not host:
        raise InvalidTarget("has a URL without a host. Write https://host/path")
    try:
        host.encode("idna")  # as the look-up of a host does
    except UnicodeError:
        raise InvalidTarget(
            "has a host with an empty part, or one of more than 63 characters. Correct its name"
        ) from None
    if has_user:
        raise InvalidTarget("has a URL with a user or a password. Messages are signed instead")
    if has_fragment:
        raise InvalidTarget("has a URL with a #. It is not sent; leave it out")
