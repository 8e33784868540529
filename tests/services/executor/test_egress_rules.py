"""What is public, what the allow-list opens, and which forms of a host are refused unseen."""

import pytest
import yarl
from millrace_sdk import ActionFailed

from services.executor.egress_rules import AllowList, Gate, is_public


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.1",
        "0.1.2.3",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.7",
        "203.0.113.7",
        "192.88.99.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:a9fe:a9fe",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001:0:4136:e378::1",
        "2001:db8::1",
        "fc00::1",
        "fd00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "100::1",
        "3fff::1",
        "no address",
        "",
        "0.0.0.0",  # noqa: S104 - judged, not bound
    ],
)
def test_an_address_that_is_not_public_is_refused_in_every_form(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_a_public_address_is_open_also_when_it_comes_embedded(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:7f00:1::]/",
        "http://[fd00::1]/",
        "http://2130706433/",
        "http://017700000001/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://0177.0.0.1/",
        "http://127.0.0.0x1/",
        "http://1/",
        "http://127.0.0.1./",
        "http://\uff11\uff12\uff17.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.100.100.200/",
        "http://localhost/",
        "http://localhost./",
        "http://LOCALHOST:8080/",
        "http://a.localhost/",
        "http://224.0.0.1/",
        "http://127.0.0.1:80#@8.8.8.8/",
        "file:///etc/passwd",
        "gopher://8.8.8.8/",
        "ftp://8.8.8.8/",
        "data:,x",
        "unix:///run/x.sock",
        "//8.8.8.8/",
        "8.8.8.8",
    ],
)
def test_a_url_that_needs_no_look_up_is_refused_at_once(url: str) -> None:
    with pytest.raises(ActionFailed) as refused:
        Gate(AllowList()).check(yarl.URL(url))
    assert refused.value.kind in ("EGRESS_BLOCKED", "INPUT_INVALID")
    assert not refused.value.retryable


@pytest.mark.parametrize(
    "url", ["http://8.8.8.8@127.0.0.1/", "https://user:password@example.com/", "http://u:@8.8.8.8/"]
)
def test_a_user_in_the_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ActionFailed, match="user or password") as refused:
        Gate(AllowList()).check(yarl.URL(url))
    assert "password@" not in refused.value.message


@pytest.mark.parametrize(
    "url", ["https://example.com/", "http://8.8.8.8:8080/x?y", "https://[2606:4700::1111]/", "http://a.example./"]
)
def test_a_url_that_may_be_public_passes_to_the_look_up(url: str) -> None:
    Gate(AllowList()).check(yarl.URL(url))


@pytest.mark.parametrize("url", ["http://10.1.2.3/", "http://[fd00::7]:8443/", "http://[::ffff:127.0.0.1]:1/"])
def test_what_a_refusal_advises_to_open_opens_it(url: str) -> None:
    with pytest.raises(ActionFailed) as refused:
        Gate(AllowList()).check(yarl.URL(url))
    entry = refused.value.message.rpartition("can open ")[2].removesuffix(" to flows.")
    Gate(AllowList.parse([entry])).check(yarl.URL(url))


def test_the_allow_list_opens_exactly_what_it_names() -> None:
    allow = AllowList.parse(
        ["10.1.0.0/16:8443", "192.168.7.7", "[fd00::/8]:443", "fd12::/16", "Warehouse.internal:9000", "127.0.0.1:81"]
    )
    assert allow.opens_address("10.1.2.3", 8443)
    assert not allow.opens_address("10.1.2.3", 443)
    assert not allow.opens_address("10.2.0.1", 8443)
    assert allow.opens_address("192.168.7.7", 1)
    assert allow.opens_address("fd01::1", 443)
    assert not allow.opens_address("fd01::1", 80)
    assert allow.opens_address("fd12::1", 80)
    assert allow.opens_address("127.0.0.1", 81)
    assert not allow.opens_address("::ffff:127.0.0.1", 81)
    assert allow.opens_name("warehouse.internal", 9000)
    assert not allow.opens_name("warehouse.internal", 9001)
    assert not allow.opens_name("other.internal", 9000)


@pytest.mark.parametrize(
    "entry", ["warehouse", "10.1.0.0/99", "10.1.0.1/16", "host:0", "host:99999", "a:b", "", "[::1", "http://x:1"]
)
def test_a_wrong_entry_of_the_allow_list_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match="Egress"):
        AllowList.parse([entry])


OWN = "http://localhost:8080"


def test_a_flow_may_call_the_webhooks_of_millrace_itself() -> None:
    gate = Gate(AllowList(), OWN)
    gate.check(yarl.URL(f"{OWN}/api/v1/webhooks/0197/sync?x=1"))
    assert gate.opens_name("localhost", 8080)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/v1/flows",
        "/metrics",
        "/api/v1/webhooks",
        "/api/v1/webhooks/../flows",
        "/api/v1/webhooks/%2e%2e/flows",
        "/api/v1/webhooks/..%2fflows",
        "/api/v1/webhooks/x%5c..",
        "//api/v1/webhooks/x",
        "/api/v1/webhooks//x",
    ],
)
def test_but_nothing_else_of_it(path: str) -> None:
    with pytest.raises(ActionFailed) as refused:
        Gate(AllowList(), OWN).check(yarl.URL(f"{OWN}{path}", encoded=True))
    assert refused.value.kind == "EGRESS_BLOCKED"


def test_nor_another_port_of_the_same_name() -> None:
    gate = Gate(AllowList(), OWN)
    assert not gate.opens_name("localhost", 5432)
    with pytest.raises(ActionFailed):
        gate.check(yarl.URL("http://localhost:5432/api/v1/webhooks/x"))
    with pytest.raises(ActionFailed):
        gate.check(yarl.URL("https://localhost:8080/api/v1/webhooks/x"))
