"""The routes that carry the load: upsert, query and fetch, from bytes to bytes below any framework."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable

from query_api.documents import check_vectors_index, holds_documents
from query_api.questions import QueryResult, Question
from query_api.reads import Reads
from query_api.rest.bodies import find_lifter
from query_api.rest.decode import INLINE_BYTES_MAX, decode_query, decode_upsert
from query_api.rest.encode import encode, encode_fetch, encode_query
from query_api.rest.exchange import Answer, Call, read_headers, visible_fields, wanted_of, write_context, write_headers
from query_api.writes import Writes
from schemas.operations import Upsert

__all__ = ["HotRoute", "HotRoutes"]

_QUESTION_BYTES_MAX = 512 * 1024

HotRoute = Callable[[Call], Awaitable[Answer]]


class HotRoutes:
    """`POST /vectors/upsert`, `POST /query`, `GET /vectors/fetch`."""

    def __init__(self, reads: Reads, writes: Writes) -> None:
        self._reads = reads
        self._writes = writes
        self._lifter = find_lifter()
        self.table: dict[tuple[str, str], tuple[str, HotRoute]] = {
            ("POST", "/vectors/upsert"): ("upsert", self.upsert),
            ("POST", "/query"): ("query", self.query),
            ("GET", "/vectors/fetch"): ("fetch", self.fetch),
        }

    async def upsert(self, call: Call) -> Answer:
        """Append the vectors; answer when durable, or visible where that is asked for."""
        check_vectors_index(call.index.spec)
        namespace, events = await self._decoded(call.body, call.index.spec.dimension)
        written = await self._writes.append(call.index, namespace, events, write_context(call.headers))
        body = {"upsertedCount": len(events), **visible_fields(written)}
        return Answer(200, encode(body), write_headers(written))

    async def _decoded(self, body: bytes, dimension: int) -> tuple[str, list[Upsert]]:
        """Decode an upsert; a large one on a thread, so that others are served meanwhile."""
        if len(body) <= INLINE_BYTES_MAX:
            return decode_upsert(body, dimension=dimension, lifter=self._lifter)
        return await asyncio.to_thread(decode_upsert, body, dimension=dimension, lifter=self._lifter)

    async def query(self, call: Call) -> Answer:
        """Search one namespace."""
        namespace, question, consistency = await self._question(call)
        wanted = wanted_of(call.headers, consistency)
        result, shown = await self._reads.query(call.index, namespace, question, wanted)
        if holds_documents(call.index.spec):
            result = QueryResult([], result.explain)
        return Answer(200, encode_query(result, namespace), read_headers(shown))

    async def _question(self, call: Call) -> tuple[str, Question, object]:
        decode = functools.partial(
            decode_query,
            call.body,
            dimension=call.index.spec.dimension,
            lifter=self._lifter,
            api_version=call.api_version,
        )
        # A vector of any dimension is taken out by native code in a millisecond; what is larger is no plain question.
        return decode() if len(call.body) <= _QUESTION_BYTES_MAX else await asyncio.to_thread(decode)

    async def fetch(self, call: Call) -> Answer:
        """Return records by id."""
        namespace, ids = "", []
        for name, value in call.parameters():
            if name == "ids":
                ids.append(value)
            elif name == "namespace":
                namespace = value
        records, shown = await self._reads.fetch(call.index, namespace, ids, wanted_of(call.headers))
        if holds_documents(call.index.spec):
            records = {}
        return Answer(200, encode_fetch(records, namespace, asked=len(ids)), read_headers(shown))
