"""An index that is backed up and restored beside the load, and what each of its backups must hold."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlencode

from tests.crash.client import Client, Reply, Unreachable
from tests.crash.history import Violation
from tests.crash.server import Server

__all__ = ["Archive"]

_INDEX = "archive"
_NAMESPACES = ("", "side")
_RECORDS = 60
_SECONDS = 60.0


class Archive:
    """Goes round and round: write a generation, back it up, restore it, compare, delete the copy and an older backup.

    Nobody else writes to the index, and nothing is written to it between an acknowledged generation and the moment
    when its backup is ready, so the backup holds exactly that generation. A copy that claims to be ready is compared
    at once, whatever died meanwhile.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._generation = 0
        self._stage = "write"
        self._backup = ""
        # Backups that are there, by generation.
        self._kept: dict[int, str] = {}
        self.restored = 0

    def step(self) -> None:
        """Do the next thing; what finds no answer is tried again later."""
        try:
            with Client(self._server.port) as client:
                self._stage = getattr(self, f"_{self._stage}")(client)
        except Unreachable:
            time.sleep(0.05)

    def verify(self) -> None:
        """Finish the round under way; delete the index; every backup that is left is whole. Raises `Violation`."""
        goal, deadline = self.restored + 1, time.monotonic() + _SECONDS
        while self.restored < goal or self._stage != "write":
            if time.monotonic() > deadline:
                raise Violation(f"a backup comes to no end at '{self._stage}': {self._server.said()[-3000:]}")
            self.step()
            time.sleep(0.01)
        with Client(self._server.port) as client:
            self._expect(client.call("DELETE", f"/indexes/{_INDEX}"), 202)
            listed = client.call("GET", "/backups?limit=100").body["data"]
            known = {one["backup_id"]: one for one in listed}
            for generation, backup in self._kept.items():
                if backup not in known or known[backup]["status"] != "Ready":
                    raise Violation(f"backup {backup}, which was ready, is {known.get(backup)}")
                self._compare(client, generation, known[backup]["record_count"])
                name = f"last-{generation}"
                self._expect(client.call("POST", f"/backups/{backup}/create-index", {"name": name}), 202)
                while not self._is_ready(client, name):
                    if time.monotonic() > deadline:
                        raise Violation(f"index {name} is never ready: {self._server.said()[-3000:]}")
                    time.sleep(0.02)
                self._check(client, name, generation)

    def _write(self, client: Client) -> str:
        made = {"name": _INDEX, "dimension": 4, "metric": "dotproduct"}
        self._expect(client.call("POST", "/indexes", made), 201, 409)
        generation = self._generation + 1
        for namespace in _NAMESPACES:
            vectors = [record(generation, number) for number in range(_RECORDS)]
            body = {"vectors": vectors, "namespace": namespace}
            if client.call("POST", f"/i/{_INDEX}/vectors/upsert", body).status != 200:
                return "write"
        self._generation = generation
        return "ask"

    def _ask(self, client: Client) -> str:
        reply = client.call("POST", f"/indexes/{_INDEX}/backups", {"name": f"generation {self._generation}"})
        if reply.status in (503, 504):
            return "ask"
        self._expect(reply, 201)
        self._backup = reply.body["backup_id"]
        return "wait"

    def _wait(self, client: Client) -> str:
        reply = client.call("GET", f"/backups/{self._backup}")
        self._expect(reply, 200)
        if reply.body["status"] != "Ready":
            return "wait"
        self._compare(client, self._generation, reply.body["record_count"])
        self._kept[self._generation] = self._backup
        return "restore"

    def _restore(self, client: Client) -> str:
        reply = client.call("POST", f"/backups/{self._backup}/create-index", {"name": self._copy})
        if reply.status in (503, 504):
            return "restore"
        # 409: it was asked for already, and the answer did not come.
        self._expect(reply, 202, 409)
        return "watch"

    def _watch(self, client: Client) -> str:
        if not self._is_ready(client, self._copy):
            return "watch"
        self._check(client, self._copy, self._generation)
        self.restored += 1
        return "clear"

    def _clear(self, client: Client) -> str:
        self._expect(client.call("DELETE", f"/indexes/{self._copy}"), 202, 404)
        for generation in [older for older in self._kept if older < self._generation]:
            self._expect(client.call("DELETE", f"/backups/{self._kept[generation]}"), 202, 404)
            del self._kept[generation]
        return "write"

    @property
    def _copy(self) -> str:
        return f"copy-{self._generation}"

    def _is_ready(self, client: Client, name: str) -> bool:
        reply = client.call("GET", f"/indexes/{name}")
        self._expect(reply, 200)
        if reply.body["status"]["state"] == "InitializationFailed":
            raise Violation(f"index {name} could not be restored: {client.call('GET', '/restore-jobs').body}")
        return bool(reply.body["status"]["ready"])

    def _check(self, client: Client, name: str, generation: int) -> None:
        """Compare all that an index holds with a generation. Raises `Violation`."""
        for namespace in _NAMESPACES:
            ids = [("ids", f"r{number}") for number in range(_RECORDS)]
            path = f"/i/{name}/vectors/fetch?{urlencode([*ids, ('namespace', namespace)])}"
            found = self._read(client, "GET", path)["vectors"]
            expected = {one["id"]: one for one in (record(generation, number) for number in range(_RECORDS))}
            if found != expected:
                wrong = [key for key in expected if found.get(key) != expected[key]]
                raise Violation(f"index {name} is not generation {generation} in '{namespace}': {wrong}")
        stats = self._read(client, "POST", f"/i/{name}/describe_index_stats", {})
        self._compare(client, generation, stats["totalVectorCount"])

    @staticmethod
    def _compare(client: Client, generation: int, records: int) -> None:
        if records != _RECORDS * len(_NAMESPACES):
            raise Violation(f"generation {generation} has {records} records: {client.call('GET', '/backups').body}")

    def _read(self, client: Client, method: str, path: str, body: object = None) -> Any:
        """Read; again while the server brings the index up to date after its start."""
        deadline = time.monotonic() + _SECONDS
        while (reply := client.call(method, path, body)).status == 503 and time.monotonic() < deadline:
            time.sleep(0.02)
        self._expect(reply, 200)
        return reply.body

    @staticmethod
    def _expect(reply: Reply, *statuses: int) -> None:
        if reply.status in (503, 504):
            # Not now: as if no answer had come.
            raise Unreachable(reply.body, was_sent=True)
        if reply.status not in statuses:
            raise Violation(f"an answer was {reply.status}, not {statuses}: {reply.body}")


def record(generation: int, number: int) -> dict[str, Any]:
    """Return a record that is another in each generation."""
    values = [1, number, generation, 0.5]
    sparse = {"indices": [number, 1_000 + generation], "values": [0.25, 1]}
    metadata = {"generation": generation, "text": "x" * (number % 7)}
    return {"id": f"r{number}", "values": values, "sparseValues": sparse, "metadata": metadata}
