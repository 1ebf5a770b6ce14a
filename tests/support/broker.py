"""A real Apache Kafka broker for tests: one that is there, else one in Docker, else one from jars with Java.

The order: `KAFKA_BOOTSTRAP_SERVERS`, a Docker daemon through testcontainers, Java 17 or newer with jars that Maven
fetches into the user's cache folder. Where there is none, `find_source` says why.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import string
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from tests.support.ports import free_ports

__all__ = ["Broker", "BrokerSource", "NoBroker", "find_source"]

_KAFKA = Path(__file__).with_name("kafka")
_VERSION = "4.4.0"
_CLUSTER_ID = "ZnJlc2hldC10ZXN0cy0wMQ"
_START_SECONDS = 90.0
_JAVA_FLAGS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")


class NoBroker(Exception):
    """No broker can be had here; the text says why."""


class Broker(ABC):
    """One broker. Stopped, killed and started again it keeps its address and its data."""

    bootstrap: str

    def start(self) -> None:
        """Start it and return when it serves; one that runs is left alone."""
        self.launch()
        self.wait()

    @abstractmethod
    def launch(self) -> None:
        """Start it without waiting; from the main thread, since the kernel ends it with the thread that made it."""

    @abstractmethod
    def wait(self) -> None:
        """Wait until it serves."""

    @abstractmethod
    def kill(self) -> None:
        """End it without warning."""

    @abstractmethod
    def stop(self) -> None:
        """End it in order."""

    @abstractmethod
    def pause(self) -> None:
        """Let it hang: connections stay open, nothing is answered."""

    @abstractmethod
    def resume(self) -> None:
        """End a pause."""

    @abstractmethod
    def remove(self) -> None:
        """End it for good and delete its data."""


class ExternalBroker(Broker):
    """A broker that somebody else runs: used, never touched."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    def launch(self) -> None:
        """Nothing is to be started."""

    def wait(self) -> None:
        host, _, port = self.bootstrap.split(",")[0].rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError as error:
            raise NoBroker(f"KAFKA_BOOTSTRAP_SERVERS={self.bootstrap} does not answer: {error}") from error

    def kill(self) -> None:
        raise NotImplementedError

    stop = pause = resume = kill

    def remove(self) -> None:
        """Leave it as it is."""


class JarBroker(Broker):
    """A broker from jars, in a process of its own on free ports."""

    def __init__(self, libraries: Path) -> None:
        self._libraries = libraries
        self._folder = Path(tempfile.mkdtemp(prefix="freshet-kafka-"))
        self._process: subprocess.Popen[bytes] | None = None
        port, controller_port = free_ports(2)
        self.bootstrap = f"127.0.0.1:{port}"
        template = string.Template((_KAFKA / "server.properties").read_text())
        self._settings = self._folder / "server.properties"
        self._settings.write_text(
            template.substitute(port=port, controller_port=controller_port, data=self._folder / "data")
        )
        self._log = self._folder / "broker.log"
        self._begin = 0
        subprocess.run(
            self._java("kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(self._settings)),
            check=True,
            capture_output=True,
            timeout=_START_SECONDS,
        )

    def launch(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        with self._log.open("ab") as log:
            self._begin = log.tell()
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._settings)),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait(self) -> None:
        _wait_until(self._is_ready, "the broker to start", self._tail)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # The signal only asks: on a busy machine threads answer requests for a while after it was sent.
        tasks = Path(f"/proc/{self._process.pid}/task")
        if tasks.exists():
            _wait_until(lambda: all(_is_stopped(task) for task in tasks.iterdir()), "the broker to stop", self._tail)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _java(self, main: str, *arguments: str) -> list[str]:
        # Where the kernel can, it ends the broker when the test run dies.
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        return [
            *guard,
            "java",
            *_JAVA_FLAGS,
            f"-Dlog4j2.configurationFile={_KAFKA / 'log4j2.properties'}",
            "-cp",
            f"{self._libraries}/*",
            main,
            *arguments,
        ]

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"The broker ended with code {self._process.returncode}:\n{self._tail()}")
        return b"Kafka Server started" in self._log.read_bytes()[self._begin :]

    def _end(self, how: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(how)
        self._process.send_signal(signal.SIGCONT)
        self._process.wait(timeout=60)

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-4_000:]


def _is_stopped(task: Path) -> bool:
    try:
        return "\nState:\tT" in (task / "status").read_text()
    except FileNotFoundError:
        # The thread has ended meanwhile.
        return True


class DockerBroker(Broker):
    """A broker in a container of the official image, on a fixed free port, so that a restart keeps its address."""

    def __init__(self) -> None:
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415  # only where there is a daemon

        (port,) = free_ports(1)
        self.bootstrap = f"127.0.0.1:{port}"
        self._is_created = False
        self._begin = 0
        self._container = DockerContainer(f"apache/kafka:{_VERSION}").with_bind_ports(9092, port)
        settings = {
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_LISTENERS": "PLAINTEXT://:9092,BROKER://:9093,CONTROLLER://:9094",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port},BROKER://localhost:9093",
            "KAFKA_INTER_BROKER_LISTENER_NAME": "BROKER",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,BROKER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9094",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
            "KAFKA_BROKER_SESSION_TIMEOUT_MS": "3000",
            "KAFKA_BROKER_HEARTBEAT_INTERVAL_MS": "500",
            "CLUSTER_ID": _CLUSTER_ID,
        }
        for name, value in settings.items():
            self._container.with_env(name, value)

    def launch(self) -> None:
        if not self._is_created:
            self._container.start()
            self._is_created = True
            return
        wrapped = self._container.get_wrapped_container()
        wrapped.reload()
        if wrapped.status != "running":
            self._begin = len(self._logs())
            wrapped.start()

    def wait(self) -> None:
        _wait_until(lambda: b"Kafka Server started" in self._logs()[self._begin :], "the container", self._tail)

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()

    def stop(self) -> None:
        self._container.get_wrapped_container().stop(timeout=30)

    def pause(self) -> None:
        self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        self._container.get_wrapped_container().unpause()

    def remove(self) -> None:
        self._container.stop(force=True, delete_volume=True)

    def _logs(self) -> bytes:
        if not self._is_created:
            return b""
        return bytes(self._container.get_wrapped_container().logs())

    def _tail(self) -> str:
        return self._logs().decode(errors="replace")[-4_000:]


class BrokerSource:
    """Where brokers come from: `shared` for most tests, `private` ones for tests that kill them."""

    def __init__(self, *, shared: Callable[[], Broker], private: Callable[[], Broker]) -> None:
        self.shared = shared
        self.private = private


def find_source() -> BrokerSource:
    """Return the first way to a broker that works here. Raises `NoBroker` with every reason."""
    own: Callable[[], Broker]
    reasons = []
    try:
        own = _from_docker()
    except NoBroker as no_docker:
        reasons.append(str(no_docker))
        try:
            own = _from_jars()
        except NoBroker as no_jars:
            reasons.append(str(no_jars))

            def own() -> Broker:
                raise NoBroker("; ".join(reasons))

    external = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if external:
        return BrokerSource(shared=lambda: ExternalBroker(external), private=own)
    if len(reasons) == 2:
        raise NoBroker("KAFKA_BOOTSTRAP_SERVERS is not set; " + "; ".join(reasons))
    return BrokerSource(shared=own, private=own)


def _from_docker() -> Callable[[], Broker]:
    """Look for a Docker daemon without waiting for one that is not there."""
    where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    kind, _, address = where.partition("://")
    try:
        if kind == "unix":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1.0)
                probe.connect(address)
        else:
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=1.0).close()
    except (OSError, ValueError) as error:
        raise NoBroker(f"no Docker daemon at {where} ({error})") from error
    return DockerBroker


def _from_jars() -> Callable[[], Broker]:
    """Check for Java and fetch the jars once."""
    if shutil.which("java") is None:
        raise NoBroker("no Java")
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False, timeout=60).stderr
    found = re.search(r'version "(\d+)', said)
    if found is None or int(found[1]) < 17:
        raise NoBroker(f"Java 17 or newer is needed, found {said.splitlines()[0] if said else 'none'}")
    libraries = _fetched_jars()
    return lambda: JarBroker(libraries)


def _fetched_jars() -> Path:
    """Return the folder of jars, fetching them where they are not cached; two test runs may come here at once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    libraries = cache / f"freshet-kafka-{_VERSION}"
    if libraries.is_dir():
        return libraries
    if shutil.which("mvn") is None:
        raise NoBroker("no Maven to fetch the broker's jars")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"freshet-kafka-{_VERSION}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if libraries.is_dir():
            return libraries
        with tempfile.TemporaryDirectory(dir=cache, prefix="freshet-kafka-") as folder:
            shutil.copy(_KAFKA / "pom.xml", folder)
            fetch = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"]
            done = subprocess.run(
                [*fetch, "-DoutputDirectory=jars"], cwd=folder, capture_output=True, text=True, check=False, timeout=600
            )
            if done.returncode:
                raise NoBroker(f"Maven could not fetch the broker's jars: {done.stdout[-500:]}{done.stderr[-500:]}")
            # Whole or not at all: a run that is killed here leaves no half-filled folder behind.
            (Path(folder) / "jars").rename(libraries)
    return libraries


def _wait_until(is_done: Callable[[], bool], what: str, tail: Callable[[], str]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not is_done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {_START_SECONDS:.0f} s for {what}:\n{tail()}")
        time.sleep(0.05)
