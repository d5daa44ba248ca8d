"""A webhook goes to public addresses over https, and nowhere else."""

from ipaddress import ip_address, ip_network

import pytest

from saga_engine.events.feeds.webhook_target import (
    InvalidTarget,
    TargetRules,
    WebhookTarget,
    is_allowed,
)

PUBLIC_ONLY = TargetRules()
DEVELOPMENT = TargetRules(local_http=True)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://shop.example/hook", "only localhost may have http://"),
        ("file:///etc/passwd", "not https://"),
        ("gopher://shop.example/", "not https://"),
        ("javascript:alert(1)", "not https://"),
        ("shop.example/hook", "not https://"),
        ("https://", "without a host"),
        ("https:///hook", "without a host"),
        ("https://user:password@shop.example/", "a user or a password"),
        ("https://shop.example@169.254.169.254/", "a user or a password"),
        ("https://shop.example/#part", "a #"),
        ("https://shop..example/", "an empty part"),
        ("https://.shop.example/", "an empty part"),
        ("https://" + "x" * 64 + ".example/", "more than 63 characters"),
        ("https://shop.example:port/", "cannot be read"),
        ("https://shop.example:70000/", "cannot be read"),
        ("https://[::1/", "cannot be read"),
        ("https://shóp.example/", "printable ASCII"),
        ("https://shop.example/a b", "printable ASCII"),
        ("https://shop.example/\r\nx-forged: 1", "printable ASCII"),
        ("https://shop.example/" + "x" * 3000, "more than 2048"),
        (None, "printable ASCII"),
        (b"https://shop.example/", "printable ASCII"),
    ],
)
def test_a_url_that_cannot_be_a_webhook_is_refused_with_the_next_action(url, problem):
    with pytest.raises(InvalidTarget, match=problem) as raised:
        WebhookTarget.parse(url)
    assert str(raised.value).count(". ") == 1


@pytest.mark.parametrize(
    ("url", "authority", "port", "path"),
    [
        ("https://shop.example", "shop.example", 443, "/"),
        ("https://Shop.Example:8443/a?b=c", "shop.example:8443", 8443, "/a?b=c"),
        ("https://[2001:db8::1]/", "[2001:db8::1]", 443, "/"),
        ("http://localhost:8000/", "localhost:8000", 8000, "/"),
        ("http://127.0.0.1/", "127.0.0.1", 80, "/"),
    ],
)
def test_a_url_is_read(url, authority, port, path):
    target = WebhookTarget.parse(url)
    assert (target.authority, target.port, target.path) == (authority, port, path)


def test_a_token_in_a_url_is_not_shown():
    target = WebhookTarget.parse("https://shop.example/token-4711?key=4711")
    assert "4711" not in f"{target} {target!r}"


@pytest.mark.parametrize(
    "address",
    [
        *("169.254.169.254", "fd00:ec2::254", "fe80::1", "::ffff:169.254.169.254"),
        *("127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "0.1.2.3"),
        *("10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fc00::1", "::ffff:10.0.0.1"),
        *("224.0.0.1", "255.255.255.255", "240.0.0.1", "ff02::1", "192.0.2.1", "198.18.0.1"),
        *("64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:1::", "fec0::1", "::127.0.0.1"),
        *("::ffff:0:7f00:1", "192.0.0.192", "192.88.99.1", "3fff::1", "5f00::1"),
    ],
)
def test_an_address_that_is_not_public_is_refused(address):
    assert not is_allowed(ip_address(address), PUBLIC_ONLY)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_a_public_address_is_allowed(address):
    assert is_allowed(ip_address(address), PUBLIC_ONLY)


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("10.2.2.3", False),
        ("169.254.169.254", False),
        ("127.0.0.1", False),
        ("fd20:ce::254", False),
        ("fd20:ce::1", True),
    ],
)
def test_a_setting_allows_a_private_network_but_never_link_local(address, allowed):
    rules = TargetRules(
        [ip_network("10.1.0.0/16"), ip_network("169.254.0.0/16"), ip_network("fd20::/16")]
    )
    assert is_allowed(ip_address(address), rules) is allowed


async def test_local_http_is_for_development():
    target = WebhookTarget.parse("http://127.0.0.1:8000/")
    assert await target.resolve(DEVELOPMENT) == [ip_address("127.0.0.1")]
    with pytest.raises(InvalidTarget, match="webhook_local_http"):
        await target.resolve(PUBLIC_ONLY)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "0x7f.1", "2130706433", "localhost", "169.254.169.254"]
)
async def test_a_host_is_judged_by_the_addresses_that_it_has(host):
    with pytest.raises(InvalidTarget, match="not a public address") as raised:
        await WebhookTarget.parse(f"https://{host}/").resolve(PUBLIC_ONLY)
    assert "webhook_private_networks" in str(raised.value)


@pytest.mark.parametrize("port", [22, 25, 80, 1023])
async def test_ports_of_other_services_are_refused(port):
    with pytest.raises(InvalidTarget, match=f"has port {port}"):
        await WebhookTarget.parse(f"https://93.184.215.14:{port}/").resolve(PUBLIC_ONLY)
    allowed = WebhookTarget.parse("https://93.184.215.14:8443/")
    assert await allowed.resolve(PUBLIC_ONLY) == [ip_address("93.184.215.14")]
