"""`make cluster`: every service and the gateway as its own process, over gRPC sockets, on Kafka, Redis and PostgreSQL.

Decides: for development and tests, on one machine: which backings and processes there are, their addresses (free ports
of this machine), their keys (made once, kept in the folder), where their logs lie.
Leaves: how it is done in production to deploy/'s images and charts; keeping processes alive to chassis/supervisor.py.

    MILLRACE_CLUSTER=folder MILLRACE_PORT=8080 python -m deploy.cluster
"""

import asyncio
import base64
import json
import os
import secrets
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

from chassis.postgres import EmbeddedPostgres
from chassis.refusal import StartRefused
from chassis.supervisor import Child, ChildLost, Patience, Supervisor
from cli.supervise import Place, announce
from cli.up import SERVICES
from deploy.kafka.server import KafkaMissingError, KafkaServer
from deploy.redis.server import RedisMissingError, RedisServer

ROOT = Path(__file__).resolve().parent.parent


class _Server(Protocol):
    @property
    def pid(self) -> int | None: ...

    def start(self) -> None: ...
    def stop(self) -> None: ...


def main() -> None:
    """Run the cluster in the foreground until it is told to stop."""
    default = Path.home() / ".local" / "share" / "millrace-cluster"
    folder = Path(os.environ.get("MILLRACE_CLUSTER") or default).absolute()
    port = int(os.environ.get("MILLRACE_PORT") or 8080)
    try:
        asyncio.run(_run(folder, Place(folder, os.environ.get("MILLRACE_HOST") or "127.0.0.1", port)))
    except (StartRefused, KafkaMissingError, RedisMissingError, ChildLost) as error:
        print(f"millrace: {error}", file=sys.stderr)
        sys.exit(78)


async def _run(folder: Path, place: Place) -> None:
    (folder / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
    print(f"Logs: {folder / 'logs'}", flush=True)
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(EmbeddedPostgres(folder / "postgres"))
        kafka, redis = KafkaServer(folder / "kafka"), RedisServer(folder / "redis")
        await stack.enter_async_context(_running(folder, {"kafka": kafka, "redis": redis}))
        settings = _settings(folder, place, postgres.url, kafka.bootstrap, redis.url)
        supervisor = Supervisor(_children(folder, settings), patience=Patience(give_up_after=1000))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, supervisor.stop)
        async with supervisor:
            await supervisor.ready()
            announcing = asyncio.create_task(announce(place))
            await supervisor.wait()
            announcing.cancel()
            print("Millrace is stopping.", flush=True)


@asynccontextmanager
async def _running(folder: Path, servers: Mapping[str, _Server]) -> AsyncIterator[None]:
    """Starts servers together, after those that a killed cluster left behind were ended; stops them."""
    noted = folder / "servers.json"
    _end_leftovers(noted)
    try:
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers.values()))
        noted.write_text(json.dumps({name: server.pid for name, server in servers.items()}))
        yield
    finally:
        await asyncio.gather(*(asyncio.to_thread(server.stop) for server in servers.values()))
        noted.unlink(missing_ok=True)


def _end_leftovers(noted: Path) -> None:
    for name, pid in (json.loads(noted.read_text()) if noted.exists() else {}).items():
        with suppress(FileNotFoundError, ProcessLookupError):
            if name in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)


def _settings(folder: Path, place: Place, database_url: str, kafka: str, redis: str) -> dict[str, str]:
    """The environment of every process."""
    return {
        "MILLRACE_HOME": str(folder / "home"),
        "MILLRACE_HOST": place.host,
        "MILLRACE_PORT": str(place.port),
        "MILLRACE_PUBLIC_URL": os.environ.get("MILLRACE_PUBLIC_URL") or place.url,
        "MILLRACE_DATABASE_URL": database_url,
        "MILLRACE_KAFKA_BOOTSTRAP": kafka,
        "MILLRACE_REDIS_URL": redis,
        **_keys(folder / "keys.json"),
        **{f"MILLRACE_ADDRESSES__{name.upper()}": f"127.0.0.1:{_free_port()}" for name in SERVICES},
    }


def _children(folder: Path, settings: Mapping[str, str]) -> list[Child]:
    """The gateway first: it is stopped first."""
    modules = {"gateway": "gateway", **{name: f"services.{name}" for name in SERVICES}}
    return [
        Child(name, ["/bin/sh", "-c", _logged(module, folder / "logs" / f"{name}.log")], settings)
        for name, module in modules.items()
    ]


def _logged(module: str, log: Path) -> str:
    return (
        f"cd {shlex.quote(str(ROOT))} && exec {shlex.quote(sys.executable)} -m {module} >>{shlex.quote(str(log))} 2>&1"
    )


def _keys(file: Path) -> dict[str, str]:
    """The installation's keys, made at the first start: without them nothing that was sealed opens again."""
    if not file.exists():
        made = {
            "MILLRACE_INTERNAL_KEY": secrets.token_urlsafe(48),
            "MILLRACE_ENCRYPTION_KEYS": f"development:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        }
        file.touch(mode=0o600)
        file.write_text(json.dumps(made))
    kept: dict[str, str] = json.loads(file.read_text())
    return kept


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


if __name__ == "__main__":
    main()
