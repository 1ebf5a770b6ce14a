"""Loading a file through the API: some writers at a time, resumed where it stopped, bad rows set aside with the reason.

Each batch has an idempotency key, made of the load and its rows, so one whose answer was lost is simply sent again, and
undoes nothing that others wrote since. What was acknowledged without a gap is kept in a small state file, with the
name of the load and the size of its batches: a load that is taken up again sends the same batches under the same keys.
Rows that the server refuses are found by halving their batch. Rows of one id that are close together in the file may
land in either order, unless there is one writer only.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import orjson

from compose.client import error_message, key_headers
from compose.load_files import Row, RowFile
from schemas.errors import ConfigError, FreshetError, InvalidRequest, Unavailable
from schemas.idempotency import KEY_HEADER

__all__ = ["LoadOptions", "Loaded", "Loader"]

_REFUSED = frozenset({400, 413, 422})
_LATER = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """`patience_seconds`: how long nothing may be accepted before the load is given up (its state is kept).

    `key` is the API key that is sent; "" for none.
    """

    writers: int = 4
    batch_rows: int = 100
    patience_seconds: float = 60.0
    # More refused rows than this say that the file does not fit the index.
    rejected_max: int = 1_000
    state_seconds: float = 1.0
    retry_seconds_min: float = 0.1
    retry_seconds_max: float = 5.0
    trust: ssl.SSLContext | None = None
    key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load came to; `position` is the token of the last write, `rejected` the file with the bad rows."""

    rows: int
    accepted: int
    bad: int
    resumed_at: int
    position: str
    rejected: str


@dataclass(slots=True)
class _Progress:
    """What was acknowledged: all rows below `next_row`, and batches above it."""

    next_row: int = 0
    accepted: int = 0
    bad: int = 0
    position: str = ""
    ends: dict[int, tuple[int, int]] = field(default_factory=dict)

    def done(self, begin: int, end: int, bad: int) -> None:
        """Count a batch of rows `begin` to `end`; the mark moves on over batches without a gap."""
        self.ends[begin] = (end, bad)
        while self.next_row in self.ends:
            begin = self.next_row
            self.next_row, set_aside = self.ends.pop(begin)
            self.accepted += self.next_row - begin - set_aside
            self.bad += set_aside


class Loader:
    """One load of one file into one namespace of an index."""

    def __init__(
        self,
        source: RowFile,
        *,
        url: str,
        index: str,
        namespace: str,
        options: LoadOptions,
        moved: Callable[[int], None] = lambda _rows: None,
    ) -> None:
        """`moved(rows)` is called whenever that many more rows are done."""
        self._source = source
        self._target = {"url": url, "index": index, "namespace": namespace}
        self._options = options
        self._moved = moved
        first = source.paths[0]
        self._state_file = first.with_name(f"{first.name}.{index}.load-state.json")
        self._rejected_file = first.with_name(f"{first.name}.{index}.rejected.jsonl")
        self._progress = _Progress()
        self._load_id = secrets.token_urlsafe(12)
        self._batch_rows = options.batch_rows
        self._saved = 0.0
        self._last_answer = 0.0

    def resume(self) -> int:
        """Take up the state of a load that was broken off; return the row to begin with.

        A state of other files or another target counts as none. A load goes on with batches of the size that it had.
        """
        state = _read_state(self._state_file)
        if state.get("target") == self._fingerprint() and "load" in state:
            self._progress = _Progress(state["next_row"], state["accepted"], state["bad"], state["position"])
            self._load_id, self._batch_rows = state["load"], state["batch_rows"]
        self._keep_rejected(self._progress.next_row)
        return self._progress.next_row

    async def run(self) -> Loaded:
        """Load the rest of the file.

        Raises `Unavailable` where the server does not answer in time, `InvalidRequest` where too many rows are refused,
        `FreshetError` where the index is missing. In all these cases the state is kept for the next try.
        """
        loop = asyncio.get_running_loop()
        resumed_at = self._progress.next_row
        self._last_answer = loop.time()
        # Under this name, whatever happens from here on.
        await asyncio.to_thread(self._save)
        queue: asyncio.Queue[list[Row] | None] = asyncio.Queue(2 * self._options.writers)
        limits = httpx2.Limits(max_connections=self._options.writers, max_keepalive_connections=self._options.writers)
        timeout = httpx2.Timeout(self._options.patience_seconds)
        headers = key_headers(self._options.key)
        try:
            async with (
                httpx2.AsyncClient(
                    base_url=self._target["url"],
                    limits=limits,
                    timeout=timeout,
                    trust_env=False,
                    verify=self._options.trust or ssl.create_default_context(),
                    headers=headers,
                ) as http,
                asyncio.TaskGroup() as group,
            ):
                group.create_task(self._feed(queue))
                for _ in range(self._options.writers):
                    group.create_task(self._write(queue, http))
        except* FreshetError as errors:
            raise _first(errors) from errors
        finally:
            await asyncio.to_thread(self._save)
        await asyncio.to_thread(self._state_file.unlink, missing_ok=True)
        done = self._progress
        rejected = str(self._rejected_file) if done.bad else ""
        return Loaded(self._source.total, done.accepted, done.bad, resumed_at, done.position, rejected)

    async def _feed(self, queue: asyncio.Queue[list[Row] | None]) -> None:
        batches = self._batches()
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            await queue.put(batch)
        for _ in range(self._options.writers):
            await queue.put(None)

    def _batches(self) -> Iterator[list[Row]]:
        batch: list[Row] = []
        for row in self._source.rows(self._progress.next_row):
            batch.append(row)
            if len(batch) == self._batch_rows:
                yield batch
                batch = []
        if batch:
            yield batch

    async def _write(self, queue: asyncio.Queue[list[Row] | None], http: httpx2.AsyncClient) -> None:
        while (batch := await queue.get()) is not None:
            bad = [row for row in batch if row.record is None]
            bad += await self._send(http, [row for row in batch if row.record is not None])
            if bad:
                await asyncio.to_thread(self._reject, bad)
            self._progress.done(batch[0].number, batch[-1].number + 1, len(bad))
            self._moved(len(batch))
            if self._progress.bad > self._options.rejected_max:
                raise InvalidRequest(
                    f"More than {self._options.rejected_max} rows were refused, the last one because: "
                    f"{bad[-1].problem if bad else '(see the file)'} They stand in {self._rejected_file}."
                )
            now = asyncio.get_running_loop().time()
            if now - self._saved >= self._options.state_seconds:
                self._saved = now
                await asyncio.to_thread(self._save)

    async def _send(self, http: httpx2.AsyncClient, rows: Sequence[Row]) -> list[Row]:
        """Upsert `rows`; return those that the server refuses, found by halving."""
        if not rows:
            return []
        key = f"{self._load_id}:{rows[0].number}-{rows[-1].number}"
        response = await self._post(http, [row.record for row in rows if row.record is not None], key)
        if response.status_code not in _REFUSED:
            return []
        if len(rows) == 1:
            return [Row(rows[0].number, None, error_message(response.content), rows[0].source)]
        middle = len(rows) // 2
        return [*await self._send(http, rows[:middle]), *await self._send(http, rows[middle:])]

    async def _post(self, http: httpx2.AsyncClient, records: Sequence[Mapping[str, Any]], key: str) -> httpx2.Response:
        """Post until the answer is final: accepted or refused."""
        path = f"/i/{self._target['index']}/vectors/upsert"
        try:
            body = orjson.dumps(
                {"vectors": records, "namespace": self._target["namespace"]}, option=orjson.OPT_SERIALIZE_NUMPY
            )
        except TypeError as error:
            # A value that JSON has no word for, such as bytes: refused here as the server would.
            return httpx2.Response(400, json={"message": f"cannot be written as JSON: {error}"})
        headers = {"content-type": "application/json", KEY_HEADER: key}
        loop = asyncio.get_running_loop()
        pause = self._options.retry_seconds_min
        while True:
            try:
                response = await http.post(path, content=body, headers=headers)
            except httpx2.TransportError as error:
                reason = f"{type(error).__name__} {error}".strip()
                wait = pause
            else:
                if response.is_success:
                    self._progress.position = response.headers.get("x-freshet-position", "")
                if response.status_code not in _LATER:
                    self._last_answer = loop.time()
                    if response.is_error and response.status_code not in _REFUSED:
                        raise FreshetError(f"{response.status_code}: {error_message(response.content)}")
                    return response
                reason = f"{response.status_code}: {error_message(response.content)}"
                wait = max(pause, _retry_after(response))
            if loop.time() - self._last_answer > self._options.patience_seconds:
                raise Unavailable(
                    f"Nothing was accepted for {self._options.patience_seconds:.0f} s; the last reason: {reason}. "
                    "Run the same command again to go on from here."
                )
            await asyncio.sleep(wait)
            pause = min(2 * pause, self._options.retry_seconds_max)

    def _fingerprint(self) -> dict[str, Any]:
        files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self._source.paths]
        return {**self._target, "files": [list(each) for each in files]}

    def _save(self) -> None:
        done = self._progress
        state = {
            "target": self._fingerprint(),
            "load": self._load_id,
            "batch_rows": self._batch_rows,
            "next_row": done.next_row,
            "accepted": done.accepted,
            "bad": done.bad,
            "position": done.position,
        }
        beside = self._state_file.with_suffix(".new")
        try:
            beside.write_bytes(orjson.dumps(state))
            beside.replace(self._state_file)
        except OSError as error:
            raise ConfigError(
                f"Cannot write {self._state_file}, from which a load goes on: {error.strerror}."
            ) from error

    def _reject(self, rows: Sequence[Row]) -> None:
        with self._rejected_file.open("ab") as file:
            for row in rows:
                line = {"row": row.number, "reason": row.problem, "source": row.source}
                file.write(orjson.dumps(line, default=str, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")

    def _keep_rejected(self, below: int) -> None:
        """Forget the rejected rows that will come again."""
        with contextlib.suppress(FileNotFoundError):
            lines = [
                line for line in self._rejected_file.read_bytes().splitlines() if orjson.loads(line)["row"] < below
            ]
            self._rejected_file.unlink()
            if lines:
                self._rejected_file.write_bytes(b"\n".join(lines) + b"\n")


def _read_state(file: Path) -> dict[str, Any]:
    try:
        state = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        # None, or torn by a crash: the load begins at the first row, and upserts may be repeated.
        return {}
    return state if isinstance(state, dict) else {}


def _retry_after(response: httpx2.Response) -> float:
    try:
        return float(response.headers.get("retry-after", "0"))
    except ValueError:
        return 0.0


def _first(errors: BaseExceptionGroup[FreshetError]) -> FreshetError:
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, FreshetError), "the group holds nothing else"
    return found
