"""What an operator can set about the gateway.

Decides: names, defaults and bounds. Leaves: obeying them to limits.py, shell.py, hooks.py and live.py.
"""

from pydantic import Field

from chassis.settings import ServiceSettings


class GatewaySettings(ServiceSettings):
    """Settings of the gateway."""

    host: str = "127.0.0.1"
    """Address that HTTP is answered on; `0.0.0.0` or `::` for all."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port of HTTP; 0 takes a free one and logs it."""
    trusted_proxies: list[str] = Field(default_factory=list)
    """Networks (`10.0.0.0/8`) whose `X-Forwarded-For` is believed, as JSON. Empty: the peer's address counts."""
    cors_origins: list[str] = Field(default_factory=list)
    """Origins (`https://app.example.org`) whose pages may call the API, as JSON. Empty: none but the gateway's own."""
    rest_body_limit_bytes: int = Field(default=2 * 1024 * 1024, ge=1024)
    """Largest body of a REST request; webhooks have a limit of their own."""
    webhook_body_limit_bytes: int = Field(default=5 * 1024 * 1024, ge=1024, le=12 * 1024 * 1024)
    """Largest body of a webhook; over it: 413."""
    webhook_answer_timeout_s: float = Field(default=90.0, gt=0)
    """How long webhooks may take to answer, the wait for a synchronous run included."""
    body_timeout_s: float = Field(default=30.0, gt=0)
    """How long the body of a REST request may take to arrive."""
    auth_issuer: str = "millrace"
    """The `iss` claim that access tokens must carry; the same as auth's."""
    auth_audience: str = "millrace-api"
    """The `aud` claim that access tokens must carry; the same as auth's."""
    sign_up_per_hour: int = Field(default=60, ge=1)
    """New accounts an hour and address."""
    sign_in_per_address: int = Field(default=60, ge=1)
    """Attempts to sign in, and refreshes, in 5 minutes and from one address."""
    sign_in_per_account: int = Field(default=100, ge=1)
    """Attempts to sign in to one account in 15 minutes, from all addresses that never signed in to it before."""
    sign_in_per_pair: int = Field(default=10, ge=1)
    """Attempts to sign in to one account in 5 minutes from one address."""
    live_connections: int = Field(default=1000, ge=1)
    """WebSockets that may be open at once in this process."""
    ready_services: list[str] = Field(default_factory=lambda: ["auth", "flows", "webhooks", "executor"])
    """The services that `/readyz` asks, as JSON."""
