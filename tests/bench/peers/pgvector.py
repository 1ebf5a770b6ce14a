"""pgvector: the PostgreSQL that `PGVECTOR_DSN` names, in a schema of its own that is dropped afterwards."""

from __future__ import annotations

import os
import threading

import numpy as np

from tests.bench.peers.protocol import UNFILTERED, Absent


class Pgvector:
    name = "pgvector"
    remark = "server, a connection a thread; every write is synced"
    knobs = (40, 80, 120, 160, 240, 400)

    def __init__(self, dimension: int) -> None:
        try:
            import psycopg  # noqa: PLC0415 # a peer that may be absent
        except ImportError as error:
            raise Absent("psycopg is not installed") from error
        self._dsn = os.environ.get("PGVECTOR_DSN", "")
        if not self._dsn:
            raise Absent("PGVECTOR_DSN does not name a database")
        self._psycopg = psycopg
        self._local = threading.local()
        self._ef = self.knobs[0]
        try:
            self._run("CREATE EXTENSION IF NOT EXISTS vector")
        except psycopg.Error as error:
            raise Absent(f"no pgvector at PGVECTOR_DSN: {error}") from error
        self._run("DROP SCHEMA IF EXISTS freshet_bench CASCADE")
        self._run("CREATE SCHEMA freshet_bench")
        self._run(f"CREATE TABLE freshet_bench.rows (id int PRIMARY KEY, draw int, v vector({dimension}))")
        self._run(
            "CREATE INDEX ON freshet_bench.rows USING hnsw (v vector_cosine_ops) WITH (m=16, ef_construction=200)"
        )
        self._run("CREATE INDEX ON freshet_bench.rows (draw)")

    def load(self, first: int, vectors: np.ndarray, draws: np.ndarray) -> None:
        with self._connection().cursor() as cursor, cursor.copy("COPY freshet_bench.rows FROM STDIN") as copy:
            for number, (vector, draw) in enumerate(zip(vectors, draws.tolist(), strict=True), first):
                copy.write_row((number, draw, _text(vector)))

    def finish_load(self) -> None:
        self._run("ANALYZE freshet_bench.rows")

    def tune(self, knob: int) -> None:
        self._ef = knob

    def search(self, query: np.ndarray, below: int | None) -> list[int]:
        where = "" if below is None else f"WHERE draw < {int(below)}"
        # Counted on after a filter, in order of distance, until there are enough.
        self._set(f"SET hnsw.ef_search = {self._ef}; SET hnsw.iterative_scan = strict_order")
        rows = self._run(f"SELECT id FROM freshet_bench.rows {where} ORDER BY v <=> %s LIMIT 10", (_text(query),))
        return [row[0] for row in rows]

    def write(self, row: int, vector: np.ndarray) -> None:
        self._run("INSERT INTO freshet_bench.rows VALUES (%s, %s, %s)", (row, UNFILTERED, _text(vector)))

    def has(self, row: int) -> bool:
        return bool(self._run("SELECT 1 FROM freshet_bench.rows WHERE id = %s", (row,)))

    def close(self) -> None:
        self._run("DROP SCHEMA freshet_bench CASCADE")

    def _connection(self):
        if not hasattr(self._local, "connection"):
            self._local.connection = self._psycopg.connect(self._dsn, autocommit=True)
            self._local.said = ""
        return self._local.connection

    def _set(self, text: str) -> None:
        """Set what a session remembers, once per connection."""
        self._connection()
        if self._local.said != text:
            for part in text.split(";"):
                self._run(part)
            self._local.said = text

    def _run(self, text: str, values: tuple = ()) -> list:
        with self._connection().cursor() as cursor:
            cursor.execute(text, values)
            return cursor.fetchall() if cursor.description else []


def _text(vector: np.ndarray) -> str:
    return "[" + ",".join(f"{value:.7g}" for value in vector.tolist()) + "]"
