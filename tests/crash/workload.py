"""Writers and readers that know what they may see, and the comparison of everything afterwards.

Every record is owned by one writer. Some namespaces are shared by all writers, and each writer has one that it also
empties and deletes.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from schemas.positions import Position, PositionToken
from tests.crash.client import Client, Reply, Unreachable
from tests.crash.history import Answered, State, Track, Violation
from tests.crash.repeats import Keyed, Repeats
from tests.crash.writes import Target, Write, make_write, state_of, upsert

__all__ = ["Workload", "WorkloadOptions", "answered"]

_SHARED = ("alpha", "beta")
# Before so many of its writes a writer goes to another of several API processes, if only by chance.
_MOVED_SHARE = 0.05
_ATTEMPT_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class WorkloadOptions:
    """How much is done: ids per writer and namespace, seconds between writes, bytes of filling per record.

    Where several API `workers` share a port, a reader asks for what it has seen: one of them may be a moment behind.
    """

    writers: int = 8
    readers: int = 2
    ids: int = 24
    pause_seconds: float = 0.004
    filling_bytes: int = 0
    workers: int = 1


def answered(reply: Reply) -> Answered:
    """Say what an answer to a write tells. Raises `Violation` for one that no write should get."""
    if reply.status in (200, 201, 202, 504):
        return Answered.ACKNOWLEDGED
    if reply.status in (404, 429):
        return Answered.REFUSED
    if reply.status == 503:
        details = reply.body.get("details") or [reply.body.get("error", {}).get("details") or {}]
        return Answered.UNKNOWN if details[0].get("outcome") == "unknown" else Answered.REFUSED
    raise Violation(f"a write was answered {reply.status}: {reply.body}")


@dataclass(slots=True)
class _Reader:
    """What one reader has seen: it must never see less."""

    positions: dict[int, Position] = field(default_factory=dict)
    lows: dict[int, int] = field(default_factory=dict)
    token: PositionToken | None = None

    def check_token(self, token: str | None, what: str) -> None:
        if token is None:
            raise Violation(f"{what}: an answer without a position")
        parsed = PositionToken.parse(token)
        self.token = parsed if self.token is None else self.token.merge(parsed)
        for partition, position in parsed.positions.items():
            if position < self.positions.get(partition, position):
                raise Violation(f"{what}: partition {partition} went back from {self.positions[partition]} to {token}")
            self.positions[partition] = position

    def asks(self, token: str | None) -> str | None:
        """Return the token for a read that must show what this reader has seen, and `token`."""
        if self.token is None:
            return token
        return str(self.token if token is None else self.token.merge(PositionToken.parse(token)))


class Workload:
    """All writers, their records' histories, and the readers, on one index."""

    def __init__(self, port: int, index: str, *, seed: int, options: WorkloadOptions | None = None) -> None:
        self._port = port
        self._index = index
        self._options = options or WorkloadOptions()
        self._rngs = [random.Random(f"{seed} {n}") for n in range(self._options.writers + self._options.readers)]
        self._tracks = [
            [Track(writer, namespace) for namespace in (*_SHARED, f"own-{writer}")]
            for writer in range(self._options.writers)
        ]
        self._stamps = [0] * self._options.writers
        self._repeats = [Repeats(writer) for writer in range(self._options.writers)]
        # Readers outlive restarts: what one has seen before a crash, it must see after it.
        self._readers = [_Reader() for _ in range(self._options.readers)]
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []
        self.counts: Counter[str] = Counter()

    @property
    def acknowledged(self) -> int:
        """Number of acknowledged writes."""
        return sum(track.acknowledged for tracks in self._tracks for track in tracks)

    def start(self) -> None:
        """Start all threads; they bear that the server is away."""
        self._stop.clear()
        targets: list[tuple[Callable[[int], None], int]] = [(self._write_on, n) for n in range(self._options.writers)]
        targets += [(self._read_on, n) for n in range(self._options.readers)]
        self._threads = [threading.Thread(target=self._guarded, args=target, daemon=True) for target in targets]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop all threads after what they are at. Raises the first `Violation` that one of them met."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a request hangs"
        self._threads = []
        self.raise_failure()

    def abandon(self) -> None:
        """Let the threads end by themselves: the test has failed already, or is over."""
        self._stop.set()

    def raise_failure(self) -> None:
        """Raise the first failure of a thread, if there is one."""
        if self._failures:
            raise self._failures[0]

    def wait_for(self, writes: int, *, timeout_seconds: float = 60.0) -> None:
        """Wait until so many more writes were acknowledged."""
        goal = self.acknowledged + writes
        deadline = time.monotonic() + timeout_seconds
        while self.acknowledged < goal:
            self.raise_failure()
            assert time.monotonic() < deadline, f"only {self.acknowledged} of {goal} writes acknowledged: {self.counts}"
            time.sleep(0.01)

    def verify(self, *, is_restarted: bool = True) -> None:
        """Compare everything with what was acknowledged, at once: no write is under way. Raises `Violation`.

        A server that was just started shows all that its log held, whether it is asked for a position or not.
        """
        with Client(self._port, timeout_seconds=_ATTEMPT_SECONDS) as client:
            for track in (track for tracks in self._tracks for track in tracks):
                if is_restarted:
                    track.settle(self._query(client, track, None), "a first read after the restart")
            token = self._merged_token()
            expected: Counter[str] = Counter()
            for track in (track for tracks in self._tracks for track in tracks):
                found = self._query(client, track, token)
                track.settle(found, "a read at the newest position")
                deadline = time.monotonic() + _ATTEMPT_SECONDS
                while not track.is_resolvable and time.monotonic() < deadline:
                    # What was left unknown is now past or never: say so to the log, then look again.
                    self._stamps[track.writer] += 1
                    target = Target(track.writer, track.namespace, self._stamps[track.writer])
                    self._write(client, track, upsert(target, [0], 0))
                    found = self._query(client, track, track.token)
                    track.settle(found, "a read after one more write")
                self._verify_ids(client, track, token, found)
                expected[track.namespace] += len(found)
            reply = self._ask(client, "POST", "/describe_index_stats", {}, token)
            counted = {name: entry["vectorCount"] for name, entry in reply.body["namespaces"].items()}
            differing = {n: (expected[n], counted.get(n, 0)) for n in expected if expected[n] != counted.get(n, 0)}
            if differing:
                raise Violation(f"counts (expected, told) differ: {differing}")

    def peek(self) -> Counter[int]:
        """Read two writers' records from a server that was just started; count the answers by status.

        It may refuse, which takes it a while each time, but what it shows is all that the log held, else `Violation`.
        """
        statuses: Counter[int] = Counter()
        with Client(self._port, timeout_seconds=_ATTEMPT_SECONDS) as client:
            for track in (*self._tracks[0], *self._tracks[1]):
                reply = self._read(client, track, None, 0)
                statuses[reply.status] += 1
                if reply.status == 200:
                    track.settle(state_of(reply.body["matches"]), "a first read")
                elif reply.status != 503:
                    raise Violation(f"a read was answered {reply.status}: {reply.body}")
        return statuses

    # -- threads

    def _guarded(self, target: Callable[[int], None], number: int) -> None:
        try:
            target(number)
        except BaseException as error:  # noqa: BLE001 # handed to the test by `raise_failure`
            self._failures.append(error)
            self._stop.set()

    def _write_on(self, writer: int) -> None:
        rng = self._rngs[writer]
        with Client(self._port) as client:
            while not self._stop.is_set():
                if self._options.workers > 1 and rng.random() < _MOVED_SHARE:
                    # Connections of the first moment are all to the process that listened first.
                    client.close()
                track = rng.choice(self._tracks[writer])
                write, repeats = self._make(rng, track), self._repeats[writer]
                self._write(client, track, write, repeats.key(rng, self._stamps[writer]))
                if (keyed := repeats.pick(rng)) is not None:
                    self._repeat(client, keyed)
                time.sleep(self._options.pause_seconds)
                if track.only() is None:
                    with contextlib.suppress(Unreachable):
                        self._resolve(client, track)

    def _write(self, client: Client, track: Track, write: Write, key: str | None = None) -> None:
        before = track.only()
        track.begin(write.steps)
        outcome, reply = self._attempt(client, write, key)
        while key is not None and outcome is Answered.UNKNOWN and not self._stop.is_set():
            # Under its key it can be sent until it is known: it is carried out once, now or already.
            self._stop.wait(0.05)
            again, reply = self._attempt(client, write, key)
            if again is Answered.ACKNOWLEDGED:
                outcome = again
                self.counts["resolved by a key"] += 1
        track.end(outcome, None if reply is None else reply.token)
        if outcome is not Answered.ACKNOWLEDGED or reply is None:
            return
        if key is not None:
            self._repeats[track.writer].note(Keyed(write, key, reply))
        if write.matched is not None and before is not None and reply.status == 200:
            matched = write.matched(before)
            if reply.body.get("matchedRecords") != matched:
                raise Violation(f"{write.body} matched {matched} records, {reply.body} was told")

    def _attempt(self, client: Client, write: Write, key: str | None) -> tuple[Answered, Reply | None]:
        headers = {} if key is None else {"freshet-idempotency-key": key}
        try:
            reply = client.call(write.method, f"/i/{self._index}{write.path}", write.body, headers=headers)
        except Unreachable as error:
            self.counts["unanswered"] += 1
            self._stop.wait(0.02)
            return (Answered.UNKNOWN if error.was_sent else Answered.REFUSED), None
        outcome = answered(reply)
        self.counts[f"write {outcome.value} {reply.status}"] += 1
        if outcome is Answered.REFUSED and reply.status != 404:
            self._stop.wait(0.02)
        return outcome, reply

    def _repeat(self, client: Client, keyed: Keyed) -> None:
        """Send an acknowledged write again: whatever came since, it changes nothing, also where no answer comes."""
        _, reply = self._attempt(client, keyed.write, keyed.key)
        if reply is not None:
            keyed.check(reply)
            self.counts[f"repeated {reply.status}"] += 1

    def _resolve(self, client: Client, track: Track) -> None:
        """Read which of several states is true, once an acknowledged write says that the log is past them all."""
        if track.is_resolvable:
            reply = self._read(client, track, track.token, 5_000)
            if reply.status == 200:
                track.settle(state_of(reply.body["matches"]), "a writer's read")

    def _read_on(self, number: int) -> None:
        rng, reader = self._rngs[self._options.writers + number], self._readers[number]
        with Client(self._port) as client:
            while not self._stop.is_set():
                track = rng.choice(rng.choice(self._tracks))
                if rng.random() < 0.5:
                    self._read_level(client, rng, track, reader)
                    continue
                demand = track.seen() if rng.random() < 0.5 else None
                token = demand.token if demand else None
                if self._options.workers > 1:
                    token = reader.asks(token)
                try:
                    reply = self._read(client, track, token, 3_000)
                except Unreachable:
                    self._stop.wait(0.02)
                    continue
                self.counts[f"read {reply.status}"] += 1
                if reply.status in (412, 503):
                    self._stop.wait(0.02)
                    continue
                if reply.status != 200:
                    raise Violation(f"a read was answered {reply.status}: {reply.body}")
                low = reader.lows.get(id(track), 0)
                if demand is not None and demand.token is not None:
                    low = max(low, demand.floor)
                reader.lows[id(track)] = track.check(state_of(reply.body["matches"]), low, f"reader {number}")
                reader.check_token(reply.token, f"reader {number}")

    def _read_level(self, client: Client, rng: random.Random, track: Track, reader: _Reader) -> None:
        """Read strongly or within a bound, without a position: what was acknowledged before, or long enough, shows."""
        staleness_ms = rng.choice((None, None, 0, 50, 500))
        floor = track.floor_at(time.monotonic() - (staleness_ms or 0) / 1000)
        level = {"x-freshet-consistency": "strong"}
        if staleness_ms is not None:
            level = {"x-freshet-consistency": "bounded", "x-freshet-max-staleness-ms": str(staleness_ms)}
        name = level["x-freshet-consistency"]
        # All that anybody has seen was in the log by then.
        low = reader.lows.get(id(track), 0) if staleness_ms is None else 0
        try:
            reply = self._read(client, track, None, 3_000, {**level, "x-freshet-wait-ms": "1000"})
        except Unreachable:
            self._stop.wait(0.02)
            return
        self.counts[f"{name} read {reply.status}"] += 1
        if reply.status in (412, 503):
            self._stop.wait(0.02)
            return
        if reply.status != 200:
            raise Violation(f"a {name} read was answered {reply.status}: {reply.body}")
        shown = track.check(state_of(reply.body["matches"]), max(floor, low), f"a {name} read ({staleness_ms} ms)")
        if staleness_ms is None:
            reader.lows[id(track)] = shown
            reader.check_token(reply.token, "a strong read")

    # -- requests

    def _make(self, rng: random.Random, track: Track) -> Write:
        self._stamps[track.writer] += 1
        target = Target(track.writer, track.namespace, self._stamps[track.writer], self._options.filling_bytes)
        slots = rng.sample(range(self._options.ids), rng.randint(1, 8))
        return make_write(rng, target, slots, is_own=track.namespace not in _SHARED)

    def _read(
        self, client: Client, track: Track, token: str | None, wait_ms: int, level: Mapping[str, str] | None = None
    ) -> Reply:
        body: dict[str, Any] = {"namespace": track.namespace, "vector": [1, 0, 0, 0], "topK": 10_000}
        body |= {"includeValues": True, "includeMetadata": True}
        if track.namespace in _SHARED:
            body["filter"] = {"owner": track.writer}
        headers = {**_at_least(token, wait_ms), **(level or {})}
        return client.call("POST", f"/i/{self._index}/query", body, headers=headers)

    def _query(self, client: Client, track: Track, token: str | None) -> State:
        reply = _insist(lambda: self._read(client, track, token, 10_000))
        return state_of(reply.body["matches"])

    def _ask(self, client: Client, method: str, path: str, body: object, token: str | None) -> Reply:
        headers = _at_least(token, 10_000)
        return _insist(lambda: client.call(method, f"/i/{self._index}{path}", body, headers=headers))

    def _verify_ids(self, client: Client, track: Track, token: str | None, found: State) -> None:
        ids = [f"w{track.writer}-{slot}" for slot in range(self._options.ids)]
        query = urlencode([("namespace", track.namespace), *(("ids", i) for i in ids)])
        reply = self._ask(client, "GET", f"/vectors/fetch?{query}", None, token)
        fetched = state_of(list(reply.body["vectors"].values()))
        if fetched != found:
            raise Violation(f"fetch and query differ in {track.namespace!r}: {fetched} and {found}")
        query = urlencode([("namespace", track.namespace), ("prefix", f"w{track.writer}-")])
        reply = self._ask(client, "GET", f"/vectors/list?{query}", None, token)
        listed = [entry["id"] for entry in reply.body["vectors"]]
        if listed != sorted(found):
            raise Violation(f"list and query differ in {track.namespace!r}: {listed} and {sorted(found)}")

    def _merged_token(self) -> str | None:
        merged: PositionToken | None = None
        for track in (track for tracks in self._tracks for track in tracks):
            if track.token is not None:
                token = PositionToken.parse(track.token)
                merged = token if merged is None else merged.merge(token)
        return None if merged is None else str(merged)


def _insist(attempt: Callable[[], Reply]) -> Reply:
    """Repeat a read until it is answered: at once after a restart it may be refused, never be wrong."""
    deadline = time.monotonic() + _ATTEMPT_SECONDS
    while True:
        said: object = None
        try:
            reply = attempt()
            if reply.status == 200:
                return reply
            said = reply
            if reply.status not in (412, 503):
                raise Violation(f"a read was answered {reply.status}: {reply.body}")
        except Unreachable as error:
            said = error
        if time.monotonic() > deadline:
            raise Violation(f"not readable {_ATTEMPT_SECONDS} s after the restart: {said}")
        time.sleep(0.02)


def _at_least(token: str | None, wait_ms: int) -> dict[str, str]:
    return {} if token is None else {"x-freshet-at-least": token, "x-freshet-wait-ms": str(wait_ms)}
