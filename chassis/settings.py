"""What an operator can set, and what follows when nothing is set (embedded mode).

Decides: the environment names (`MILLRACE_…`, also from `.env`), the folders of an installation, where each service's
socket is, and which internal keys are good enough to start with.
Leaves: the settings of one service to its own subclass in `services/<x>/settings.py`.
"""

import hashlib
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from chassis.errors import StartRefused

_MAX_SOCKET_PATH_BYTES = 100
"""Linux allows 107 for a Unix socket's path; gRPC and the supervisor add nothing, the rest is margin."""


class ServiceSettings(BaseSettings):
    """What every process understands. A service adds its own fields in a subclass."""

    model_config = SettingsConfigDict(
        env_prefix="MILLRACE_", env_nested_delimiter="__", env_file=".env", env_ignore_empty=True, extra="ignore"
    )

    home: Path = Field(default_factory=lambda: Path.home() / ".local" / "share" / "millrace")
    """Where an embedded installation keeps everything."""
    database_url: str = ""
    """PostgreSQL; empty: the embedded one under `home`."""
    kafka_bootstrap: str = ""
    """`host:port,…` of Apache Kafka; empty: the log lives in PostgreSQL."""
    redis_url: str = ""
    """Redis; empty: in this process. Processes apart need it: without, each counts limits alone, and a sign-out counts
    only when the access token expires.
    """
    internal_key: SecretStr = SecretStr("")
    """Signs identities between processes; 32 characters or more; the same for all. Embedded: made at first start."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least weight of the log lines written: `debug`, `info`, `warning` or `error`."""
    otlp_endpoint: str = ""
    """`http://host:4317` of an OpenTelemetry collector; empty: no traces leave."""
    listen: str = ""
    """Where this service answers gRPC: `unix:/path` or `host:port`; empty: the service's socket under `home`."""
    addresses: dict[str, str] = Field(default_factory=dict)
    """Service → gRPC address, as JSON or `MILLRACE_ADDRESSES__AUTH=…`; a service left out: its socket under `home`."""
    metrics_port: int = 0
    """Port of `/metrics`, `/healthz`, `/readyz`; 0: none."""
    tls_cert: Path | None = None
    """PEM chain of this process for gRPC over TCP; set all three `tls_…` or none."""
    tls_key: Path | None = None
    """PEM key of `tls_cert`."""
    tls_ca: Path | None = None
    """PEM of the authority that signs the certificates of all processes; peers must show one (mutual TLS)."""
    call_timeout_s: float = 10.0
    """Deadline of a call between services that sets none itself."""
    drain_s: float = 10.0
    """How long calls under way may take to end when the process stops."""

    @property
    def embedded(self) -> bool:
        """Whether this installation brings its own PostgreSQL, hence is one machine and one operator."""
        return not self.database_url

    def address_of(self, service: str) -> str:
        """The gRPC address of a service: as set, else its socket under `home`. Raises: StartRefused in a cluster."""
        if address := self.addresses.get(service):
            return address
        if self.embedded:
            return f"unix:{socket_path(self.home, service)}"
        raise StartRefused(
            f"The address of the {service} service is not set. Set MILLRACE_ADDRESSES__{service.upper()}=host:port."
        )

    def listen_address(self, service: str) -> str:
        """Where this process answers for `service`."""
        return self.listen or self.address_of(service)

    def resolved_internal_key(self) -> bytes:
        """The internal key. Embedded without one: made once, kept in `home/secrets`. Raises: StartRefused when weak."""
        key = self.internal_key.get_secret_value().encode()
        if not key and self.embedded:
            return load_or_create_secret(self.home / "secrets" / "internal.key", 32)
        if len(key) < 32 or len(set(key)) < 10:
            raise StartRefused(
                f"The internal key (MILLRACE_INTERNAL_KEY) is {'too weak' if key else 'not set'}. Set at least 32 "
                "random characters, the same for every process, for instance from: openssl rand -base64 48"
            )
        return key


def private_folder(path: Path) -> Path:
    """Makes a folder (and its parents) that only this user may enter, and returns it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def load_or_create_secret(path: Path, n_bytes: int) -> bytes:
    """Random bytes kept in a file of mode 0600 (as hex); made at the first call. Safe when processes start together."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        private_folder(path.parent)
        fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(n_bytes) + "\n")
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process was faster: its secret counts
                os.link(fresh, path)
        finally:
            fresh.unlink()
        text = path.read_text()
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        path.chmod(0o600)
    try:
        secret = bytes.fromhex(text.strip())
    except ValueError:
        secret = b""
    if len(secret) < n_bytes:
        raise StartRefused(
            f"The secret in {path} is damaged: {n_bytes} bytes in hex were expected. Restore it from a backup."
        )
    return secret


def socket_path(home: Path, service: str) -> Path:
    """The service's Unix socket in `home/run`, or in a private folder under /tmp when that path would be too long."""
    path = home / "run" / f"{service}.sock"
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH_BYTES:
        return path
    digest = hashlib.sha256(os.fsencode(home.absolute())).hexdigest()[:12]
    return Path(f"/tmp/millrace-{os.getuid()}-{digest}/{service}.sock")  # noqa: S108  # checked by prepare_socket_folder


def prepare_socket_folder(path: Path) -> None:
    """Makes the folder of a socket, mode 0700. Raises: StartRefused when it belongs to someone else."""
    folder = private_folder(path.parent)
    status = folder.lstat()
    if stat.S_ISLNK(status.st_mode) or status.st_uid != os.getuid():
        raise StartRefused(
            f"The folder {folder} belongs to another user. Set MILLRACE_HOME to a shorter path of your own."
        )
    if path.is_relative_to("/tmp/") and stat.S_IMODE(status.st_mode) & 0o077:  # noqa: S108  # that is what is checked
        folder.chmod(0o700)
