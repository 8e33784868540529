"""Whose request it is, by network address.

Decides: `X-Forwarded-For` is believed from the right, only as far as trusted proxies wrote it; an IPv6 sender counts as
its /64, since one sender has all of those.
Leaves: which proxies are trusted to the operator, what follows from an address to limits.py.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from starlette.types import Scope

from chassis.errors import StartRefused


class Senders:
    """Tells the address of the sender of a request."""

    def __init__(self, trusted_proxies: Sequence[str]) -> None:
        try:
            self._trusted = [ip_network(network, strict=False) for network in trusted_proxies]
        except ValueError as error:
            raise StartRefused(
                f'MILLRACE_TRUSTED_PROXIES must be a JSON list of networks such as ["10.0.0.0/8"]: {error}.'
            ) from None

    def address(self, scope: Scope) -> str:
        """The sender's address after trusted proxies; empty when it is unknown (a Unix socket)."""
        peer = scope.get("client")
        address = str(peer[0]) if peer else ""
        if not self._trusted or not self._is_trusted(address):
            return address
        forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        for hop in reversed([part.strip() for part in forwarded.decode("latin-1").split(",")]):
            if _parsed(hop) is None:
                break
            address = hop
            if not self._is_trusted(hop):
                break
        return address

    def _is_trusted(self, address: str) -> bool:
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._trusted)


def sender_key(address: str) -> str:
    """The part of an address that one sender cannot change at will."""
    parsed = _parsed(address)
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ip_network((parsed, 64), strict=False))
    return address


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(address)
    except ValueError:
        return None
