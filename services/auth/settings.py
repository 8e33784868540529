"""What an operator can set about auth.

Decides: names, defaults and bounds. Leaves: reading keys to encryption.py.
"""

from pydantic import Field, SecretStr

from chassis.settings import ServiceSettings


class AuthSettings(ServiceSettings):
    """Settings of the auth service."""

    encryption_keys: SecretStr = SecretStr("")
    """`id:base64,…`, 32 bytes each; the first seals, all open. Embedded without one: made at first start."""
    auth_bcrypt_cost: int = Field(default=12, ge=4, le=16)
    """Each step doubles the cost of a password check. Tests take 4; below 10 is no protection."""
    auth_issuer: str = "millrace"
    """The `iss` claim of access tokens."""
    auth_audience: str = "millrace-api"
    """The `aud` claim of access tokens."""
    auth_access_ttl_s: int = Field(default=900, ge=10, le=86_400)
    """How long an access token works."""
    auth_session_ttl_s: int = Field(default=30 * 86_400, ge=60)
    """How long a session lasts after its tokens were last refreshed."""
