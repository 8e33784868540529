"""Which addresses a flow may call: the rules, without any network.

Decides: what counts as public, which forms of a host are refused unseen, and what the operator's allow-list opens.
Leaves: resolving, connecting and redirects to egress.py, which asks here before each of them.
Holds: the Egress part of the attacks list. A name is judged by the address it is about to be connected to, never by an
earlier look-up; whatever is not plainly public is refused.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import yarl
from millrace_sdk import EgressBlocked, InputInvalid

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

WEBHOOK_PATH = "/api/v1/webhooks/"
"""The only part of Millrace's own address that flows may call: one flow starts another by its webhook."""

# Python's `is_global` follows the registries of its release; these are refused whatever the release thinks of them.
_NEVER: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT, and Alibaba's metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host agent, in a public range
        "169.254.0.0/16",  # link-local, and most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "::/96",  # unspecified, loopback, IPv4-compatible
        "64:ff9b:1::/48",  # NAT64 for local use
        "100::/64",
        "2001::/23",  # Teredo and other protocol assignments
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",  # unique local, and AWS's metadata
        "fe80::/10",
        "fec0::/10",  # site-local
        "ff00::/8",
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NUMERIC_LABEL = re.compile(r"^(?:\d+|0x[0-9a-f]*)$")
_NAME = re.compile(r"^[a-z0-9_-]+(\.[a-z0-9_-]+)*$")
_HOST_AND_PORT = re.compile(r"^(?P<host>\[[^\]]+\]|[^:\[\]]+)(?::(?P<port>\d{1,5}))?$")


@lru_cache(maxsize=16_384)
def is_public(text: str) -> bool:
    """Whether an address, as a socket takes it, is a public unicast one. What is no address is not."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    inner = _embedded(address)
    if inner is not None:
        return is_public(str(inner))
    if any(address in network for network in _NEVER if network.version == address.version):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved and not address.is_unspecified


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a packet to this IPv6 address may end at."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


@dataclass(frozen=True, slots=True)
class AllowList:
    """What an operator opened besides the public internet."""

    names: frozenset[tuple[str, int]] = frozenset()
    networks: tuple[tuple[Network, int | None], ...] = ()

    @classmethod
    def parse(cls, entries: Sequence[str]) -> AllowList:
        """Reads `host:port`, `10.1.0.0/16`, `10.1.0.0/16:8443`, `[fd00::/8]:443`. Raises ValueError with the entry."""
        names: set[tuple[str, int]] = set()
        networks: list[tuple[Network, int | None]] = []
        for entry in entries:
            host, port = _split(entry)
            try:
                networks.append((ipaddress.ip_network(host), port))
            except ValueError as error:
                if "/" in host or ":" in host or port is None:
                    raise ValueError(
                        f"Egress entry {entry!r} is neither host:port nor a network such as 10.1.0.0/16:8443."
                    ) from error
                names.add((host.rstrip(".").lower(), port))
        return cls(frozenset(names), tuple(networks))

    def opens_name(self, host: str, port: int) -> bool:
        """Whether this name is open at this port, wherever it leads."""
        return (host, port) in self.names

    def opens_address(self, text: str, port: int) -> bool:
        """Whether this address is open at this port. A mapped form is judged as what it is, not as what it maps to."""
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        return any(
            address in network and wanted in (None, port)
            for network, wanted in self.networks
            if network.version == address.version
        )


def _split(entry: str) -> tuple[str, int | None]:
    """Host and port of an entry; an IPv6 network without brackets has no port."""
    text = entry.strip()
    if text.count(":") > 1 and not text.startswith("["):
        return text, None
    match = _HOST_AND_PORT.match(text)
    if match is None:
        raise ValueError(f"Egress entry {entry!r} is neither host:port nor a network such as 10.1.0.0/16:8443.")
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 65_536:
        raise ValueError(f"Egress allow-list entry {entry!r} names port {port}; ports go from 1 to 65535.")
    return match["host"].strip("[]"), port


class Gate:
    """Answers for one Egress: may this URL be called, may this address be connected to."""

    def __init__(self, allow: AllowList, public_url: str = "") -> None:
        self._allow = allow
        self._own = _origin(yarl.URL(public_url)) if public_url else None

    def opens_name(self, host: str, port: int) -> bool:
        """Whether a name is open wherever it leads: by the allow-list, or as Millrace's own."""
        plain = host.rstrip(".").lower()
        return self._allow.opens_name(plain, port) or (self._own is not None and self._own[1:] == (plain, port))

    def opens_address(self, address: str, port: int) -> bool:
        """Whether an address may be connected to at this port."""
        return is_public(address) or self._allow.opens_address(address, port)

    def check(self, url: yarl.URL) -> None:
        """Refuses what needs no look-up to be refused. Raises EgressBlocked or InputInvalid."""
        if url.scheme not in ("http", "https"):
            raise EgressBlocked(f"Only http and https can be called, not {url.scheme or 'a URL without a scheme'!r}.")
        host, port = url.raw_host, url.port
        if not host or not port:
            raise InputInvalid(f"The URL names no host: {shown(url)}", field="url")
        if url.raw_user is not None or url.raw_password is not None:
            raise InputInvalid("A user or password in the URL is not accepted; use the fields for it.", field="url")
        self._check_host(host.rstrip(".").lower(), port, url)

    def _check_host(self, host: str, port: int, url: yarl.URL) -> None:
        if self._allow.opens_name(host, port):
            return
        if self._own is not None and _origin(url) == self._own:
            self._check_own_path(url)
            return
        if host == "localhost" or host.endswith(".localhost"):
            raise EgressBlocked(f"{host} is this machine itself, which flows cannot call.")
        if _is_address(host):
            if not self.opens_address(host, port):
                entry = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                raise EgressBlocked(f"{host} is not a public address. An operator can open {entry} to flows.")
        elif not _NAME.match(host):
            raise InputInvalid(f"{host!r} is no name of a host.", field="url")
        elif _NUMERIC_LABEL.match(host.rpartition(".")[2]):
            raise EgressBlocked(f"{host} is a number in place of an address. Write it as 203.0.113.7, or use a name.")

    def _check_own_path(self, url: yarl.URL) -> None:
        path = url.raw_path.lower()
        twisted = any(part in path for part in ("/..", "/.", "%2e", "%2f", "%5c", "\\", "//"))
        if twisted or not path.startswith(WEBHOOK_PATH):
            raise EgressBlocked(f"Of Millrace itself, flows can call only addresses below {WEBHOOK_PATH}.")


def shown(url: yarl.URL) -> str:
    """The URL as it may stand in a message: without user, query and fragment, where secrets are."""
    return str(url.with_user(None).with_query(None).with_fragment(None)) if url.raw_host else url.raw_path


def _origin(url: yarl.URL) -> tuple[str, str, int]:
    return url.scheme, (url.raw_host or "").rstrip(".").lower(), url.port or 0


def same_origin(one: yarl.URL, other: yarl.URL) -> bool:
    """Whether scheme, host and port are the same, so that credentials may go along."""
    return _origin(one) == _origin(other)


@lru_cache(maxsize=16_384)
def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
