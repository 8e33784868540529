"""A real Apache Kafka without containers, for development (`make cluster`) and tests.

Decides: which version (`pom.xml`), where its jars are kept (`~/.cache/millrace/kafka-<version>`, fetched once by
Maven), how the one broker is started, killed and stopped.
Leaves: how the broker is set to `server.properties`; topics to `chassis/log/kafka_topics`.
"""

import base64
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
import xml.etree.ElementTree as ET  # reads our own pom.xml
from pathlib import Path
from uuid import uuid4

HERE = Path(__file__).resolve().parent
HEAP = "-Xmx512m"

_FETCH_TIMEOUT_S = 900
_START_TIMEOUT_S = 90
_STOP_TIMEOUT_S = 20


class KafkaMissingError(Exception):
    """Something of the machine's own is missing; the message says what to install."""


def version() -> str:
    """Return Kafka's version as the pom pins it."""
    found = ET.parse(HERE / "pom.xml").find("properties/kafka.version")  # noqa: S314  # our own file
    if found is None or not found.text:
        raise KafkaMissingError(f"{HERE / 'pom.xml'} names no kafka.version.")
    return found.text


def cache_folder() -> Path:
    """Return where the jars of this version are kept, outside the repository."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "millrace" / f"kafka-{version()}"


def fetch() -> Path:
    """Return the folder with Kafka's jars, fetched when they are not there yet; one process at a time."""
    jars = cache_folder() / "lib"
    jars.parent.mkdir(parents=True, exist_ok=True)
    with (jars.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (jars.parent / "complete").exists():
            return jars
        _tool("mvn", "maven")
        fresh = jars.parent / "lib.new"
        shutil.rmtree(fresh, ignore_errors=True)
        command = ["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies"]
        got = subprocess.run(  # noqa: S603  # fixed arguments
            [*command, f"-DoutputDirectory={fresh}"],
            check=False,
            capture_output=True,
            text=True,
            timeout=_FETCH_TIMEOUT_S,
            cwd=jars.parent,
        )
        if got.returncode != 0:
            raise KafkaMissingError(f"Maven could not fetch Kafka: {(got.stdout + got.stderr).strip()[-600:]}")
        shutil.rmtree(jars, ignore_errors=True)
        fresh.rename(jars)
        (jars.parent / "complete").touch()
    return jars


def free_port() -> int:
    """Return a port nobody listens on at present."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


class KafkaServer:
    """One broker with its data in `folder`. Ports and data stay over `kill` and `start`."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self._folder = folder
        self._port = port or free_port()
        self._controller_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """Return the address for clients."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """Return the broker's process id, None when it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start the broker and wait until it takes connections. Running: nothing. Raises: KafkaMissingError."""
        if self.pid is not None:
            return
        _tool("java", "openjdk-17-jre-headless")
        jars = fetch()
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = self._folder / "server.properties"
        filled = (HERE / "server.properties").read_text()
        for name, value in self._values().items():
            filled = filled.replace("{" + name + "}", value)
        settings.write_text(filled)
        if not (self._folder / "data" / "meta.properties").exists():
            cluster = base64.urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
            made = self._java(jars, "kafka.tools.StorageTool", "format", "-t", f"a{cluster[1:]}", "-c", str(settings))
            if made.wait(_START_TIMEOUT_S) != 0:
                raise KafkaMissingError(f"Kafka could not format its folder: {self._said()}")
        self._process = self._java(jars, "kafka.Kafka", str(settings))
        self._wait_open(self._process)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Stop the broker cleanly, or hard when it takes too long."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def _values(self) -> dict[str, str]:
        return {"port": str(self._port), "controller_port": str(self._controller_port), "folder": str(self._folder)}

    def _java(self, jars: Path, main: str, *arguments: str) -> subprocess.Popen[bytes]:
        flags = [HEAP, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
        logging = ["-Dlog4j2.rootLogger.level=warn", f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"]
        with (self._folder / "server.log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603  # fixed arguments
                ["java", *flags, *logging, "-cp", f"{jars}/*", main, *arguments],  # noqa: S607  # the machine's own
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait_open(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return
            time.sleep(0.05)
        self.kill()
        raise KafkaMissingError(f"Kafka did not start: {self._said()}")

    def _said(self) -> str:
        return (self._folder / "server.log").read_text(errors="replace").strip()[-1500:]


def _tool(name: str, package: str) -> None:
    if shutil.which(name) is None:
        raise KafkaMissingError(
            f"Kafka needs the program {name!r}, which is not on this machine. Install it: apt-get install {package}"
        )
