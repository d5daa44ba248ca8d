"""
The URL of RabbitMQ: its hosts, its user, and what may be shown of it.

No error of this module quotes the URL, because it may contain a password.
"""

from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from saga_engine.errors import ConfigurationError

INVALID_URL = (
    "SAGA_ENGINE_BROKER_URL is not a valid URL. Set it, for example, to"
    " amqp://user:password@host:5672/"
)


def display_address(url: str) -> str:
    """Host, port and virtual host of a URL, without its user and password."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")  # as the resolver does
        port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
        return f"{parts.hostname}:{port}, virtual host {parts.path.lstrip('/') or '/'}"
    except ValueError:
        raise ConfigurationError(INVALID_URL) from None


def username_of(url: str) -> str:
    """
    The user of a URL.

    It is empty when the broker determines the user: by a client certificate (`auth=external`), or
    by an OAuth 2 token, which is the password of a URL without a user.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError(INVALID_URL) from None
    uses_password = dict(parse_qsl(parts.query)).get("auth", "plain") == "plain"
    return unquote(parts.username or "") if uses_password else ""


def vhost_of(url: str) -> str:
    """The name of the virtual host of a URL."""
    try:
        return unquote(urlsplit(url).path[1:]) or "/"
    except ValueError:
        raise ConfigurationError(INVALID_URL) from None


def split_hosts(url: str) -> tuple[str, ...]:
    """
    Return one URL for each host: `amqp://user:password@one:5672,two:5672,three/vhost` gives three.

    Raises:
        ConfigurationError: the URL has no host, or a comma has none before or after it.
    """
    scheme, separator, rest = url.partition("://")
    authority_end = next(
        (index for index, character in enumerate(rest) if character in "/?#"), len(rest)
    )
    credentials, at_sign, host_list = rest[:authority_end].rpartition("@")
    hosts = [host.strip() for host in host_list.split(",")]
    without_host = any(not host or host.startswith(":") for host in hosts)
    if without_host and len(hosts) == 1:
        raise ConfigurationError(INVALID_URL)
    if without_host:
        raise ConfigurationError(
            "SAGA_ENGINE_BROKER_URL has a comma without a host beside it. Name each node once:"
            " amqp://user:password@one:5672,two:5672,three:5672/"
        )
    return tuple(
        f"{scheme}{separator}{credentials}{at_sign}{host}{rest[authority_end:]}" for host in hosts
    )


def with_heartbeat(url: str, seconds: int) -> str:
    """Set the heartbeat in the URL, which is the only place where aiormq reads it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError(INVALID_URL) from None
    query = [pair for pair in parse_qsl(parts.query) if pair[0] != "heartbeat"]
    return parts._replace(query=urlencode([*query, ("heartbeat", str(seconds))])).geturl()
