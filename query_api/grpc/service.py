"""`VectorService`: each method from its request's bytes to its answer's, by the same reads and writes as REST."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson

from query_api.asked import wanted_of, write_context
from query_api.commands import deletions, required_filter, update_of
from query_api.documents import check_vectors_index, holds_documents
from query_api.grpc import codec
from query_api.grpc.frames import THREAD_BYTES
from query_api.matching import RecordPage
from query_api.packs import append_in_packs
from query_api.questions import QueryResult
from query_api.reads import IdPage, NamespaceInfo, Reads
from query_api.rest.encode import explained
from query_api.rest.exchange import Call, read_headers, write_headers
from query_api.rest.pages import filter_page_token, page_token, read_filter_page_token, read_page_token
from query_api.writes import Writes, Written
from schemas.errors import InvalidRequest
from schemas.filters import filter_to_json
from schemas.metadata import canonical_metadata
from schemas.operations import UpdateWhere

__all__ = [
    "APPLIED_HEADER",
    "EXPLAIN_HEADER",
    "VECTOR_SERVICE",
    "VISIBLE_HEADER",
    "Reply",
    "UnaryMethod",
    "VectorService",
]

VECTOR_SERVICE = "VectorService"
EXPLAIN_HEADER = "x-freshet-explain"
VISIBLE_HEADER = "x-freshet-visible"
APPLIED_HEADER = "x-freshet-applied-lsn"


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a call: a message, and initial metadata by REST's names of headers."""

    message: bytes
    headers: dict[str, str]


UnaryMethod = Callable[[Call], Awaitable[Reply]]


class VectorService:
    """The methods of one index; a call's `body` is the message, its `headers` the request metadata."""

    def __init__(self, reads: Reads, writes: Writes) -> None:
        self._reads = reads
        self._writes = writes
        self.methods: dict[str, UnaryMethod] = {
            "Upsert": self.upsert,
            "Delete": self.delete,
            "Fetch": self.fetch,
            "List": self.list_ids,
            "Query": self.query,
            "Update": self.update,
            "DescribeIndexStats": self.describe_index_stats,
            "ListNamespaces": self.list_namespaces,
            "DescribeNamespace": self.describe_namespace,
            "DeleteNamespace": self.delete_namespace,
            "CreateNamespace": self.create_namespace,
            "FetchByMetadata": self.fetch_by_metadata,
        }

    async def upsert(self, call: Call) -> Reply:
        """Append the vectors; answer when durable, or visible where that is asked for."""
        check_vectors_index(call.index.spec)
        if len(call.body) < THREAD_BYTES:
            namespace, events = codec.decode_upsert(call.body)
        else:
            namespace, events = await asyncio.to_thread(codec.decode_upsert, call.body)
        written = await append_in_packs(self._writes, call.index, namespace, events, write_context(call.headers))
        return Reply(codec.encode_upserted(len(events)), _headers_of(written))

    async def query(self, call: Call) -> Reply:
        """Search one namespace; how it was searched is told in the initial metadata, where that is asked for."""
        namespace, question = codec.decode_query(call.body, explain=_is_explained(call))
        result, shown = await self._reads.query(call.index, namespace, question, wanted_of(call.headers))
        if holds_documents(call.index.spec):
            result = QueryResult([], result.explain)
        headers = read_headers(shown)
        if result.explain is not None:
            headers[EXPLAIN_HEADER] = orjson.dumps([explained(report) for report in result.explain]).decode()
        return Reply(codec.encode_query(result, namespace), headers)

    async def fetch(self, call: Call) -> Reply:
        """Return records by id."""
        namespace, ids = codec.decode_fetch(call.body)
        records, shown = await self._reads.fetch(call.index, namespace, ids, wanted_of(call.headers))
        if holds_documents(call.index.spec):
            records = {}
        return Reply(codec.encode_fetch(records, namespace, asked=len(ids)), read_headers(shown))

    async def fetch_by_metadata(self, call: Call) -> Reply:
        """Return a page of the records that match a filter."""
        page, where = codec.decode_fetch_by_metadata(call.body)
        after = None if page.token is None or where is None else read_filter_page_token(page.token, where)
        found, shown = await self._reads.fetch_by_metadata(
            call.index, page.namespace, where, wanted_of(call.headers), after=after, limit=page.limit
        )
        if holds_documents(call.index.spec):
            found = RecordPage({}, None)
        token = None if where is None or found.after is None else filter_page_token(where, found.after)
        encoded = await asyncio.to_thread(
            codec.encode_fetch, found.records, page.namespace, asked=len(found.records), token=token
        )
        return Reply(encoded, read_headers(shown))

    async def update(self, call: Call) -> Reply:
        """Update a record, or the metadata of all that match a filter; an id beside a filter is dropped, as in REST."""
        command = codec.decode_update(call.body)
        check_vectors_index(call.index.spec)
        if command.where is not None:
            return await self._update_where(call, command)
        event = update_of(
            command.id,
            values=command.values,
            sparse=command.sparse,
            set_metadata=command.set_metadata,
            dry_run=command.dry_run,
        )
        written = await self._writes.append(call.index, command.namespace, [event], write_context(call.headers))
        return Reply(codec.encode_updated(None), _headers_of(written))

    async def delete(self, call: Call) -> Reply:
        """Delete records by id, by filter, or all of a namespace."""
        command = codec.decode_delete(call.body)
        check_vectors_index(call.index.spec)
        events = deletions(command.ids, is_all=command.is_all, where=command.where)
        written = await self._writes.delete(call.index, command.namespace, events, write_context(call.headers))
        return Reply(b"", _headers_of(written))

    async def list_ids(self, call: Call) -> Reply:
        """List ids by prefix, in pages."""
        page = codec.decode_list(call.body)
        prefix, after = _place(page)
        ids, shown = await self._reads.list_ids(
            call.index, page.namespace, wanted_of(call.headers), prefix=prefix, after=after, limit=page.limit
        )
        if holds_documents(call.index.spec):
            ids = IdPage([], None)
        token = None if ids.after is None else page_token(prefix, ids.after)
        return Reply(codec.encode_id_page(ids, page.namespace, token), read_headers(shown))

    async def describe_index_stats(self, call: Call) -> Reply:
        """Return the record counts."""
        codec.decode_stats(call.body)
        stats, shown = await self._reads.stats(call.index, wanted_of(call.headers))
        return Reply(codec.encode_stats(call.index.spec, stats), read_headers(shown))

    async def list_namespaces(self, call: Call) -> Reply:
        """List namespaces with their record counts, in pages."""
        page = codec.decode_list_namespaces(call.body)
        prefix, after = _place(page)
        found, shown = await self._reads.list_namespaces(
            call.index, wanted_of(call.headers), prefix=prefix, after=after, limit=page.limit
        )
        token = None if found.after is None else page_token(prefix, found.after)
        return Reply(codec.encode_namespaces(found, token), read_headers(shown))

    async def describe_namespace(self, call: Call) -> Reply:
        """Describe a namespace."""
        namespace = codec.decode_namespace(call.body)
        info, shown = await self._reads.describe_namespace(call.index, namespace, wanted_of(call.headers))
        return Reply(codec.encode_namespace(info), read_headers(shown))

    async def delete_namespace(self, call: Call) -> Reply:
        """Delete a namespace with its records."""
        namespace = codec.decode_namespace(call.body)
        written = await self._writes.delete_namespace(call.index, namespace, write_context(call.headers))
        return Reply(b"", _headers_of(written))

    async def create_namespace(self, call: Call) -> Reply:
        """Make an empty namespace."""
        name, schema = codec.decode_new_namespace(call.body)
        written = await self._writes.create_namespace(call.index, name, schema, write_context(call.headers))
        return Reply(codec.encode_namespace(NamespaceInfo(name, 0, schema)), _headers_of(written))

    async def _update_where(self, call: Call, command: codec.UpdateCommand) -> Reply:
        where = required_filter(command.where, "Update with empty metadata filter is not allowed")
        if command.values or command.sparse is not None:
            raise InvalidRequest("Update by metadata filter can set metadata only, not values")
        set_metadata = canonical_metadata(command.set_metadata)
        if command.dry_run:
            matched, shown = await self._reads.count_matching(
                call.index, command.namespace, where, wanted_of(call.headers)
            )
            return Reply(codec.encode_updated(matched), read_headers(shown))
        event = UpdateWhere(filter_to_json(where), set_metadata)
        matched, written = await self._writes.update_where(
            call.index, command.namespace, event, write_context(call.headers)
        )
        return Reply(codec.encode_updated(matched), _headers_of(written))


def _headers_of(written: Written) -> dict[str, str]:
    """Return the metadata of a write: REST's headers, and what REST says in its body of a write that was waited for."""
    headers = write_headers(written)
    if written.is_visible is not None:
        headers[VISIBLE_HEADER] = "true" if written.is_visible else "false"
        headers[APPLIED_HEADER] = str(written.applied)
    return headers


def _place(page: codec.PageRequest) -> tuple[str, str | None]:
    """Return the prefix of a page and the name that it begins after. Raises `InvalidRequest`."""
    if page.token is None:
        return page.prefix or "", None
    return read_page_token(page.token, page.prefix)


def _is_explained(call: Call) -> bool:
    asked = call.headers.get(EXPLAIN_HEADER.encode())
    if asked not in (None, b"true", b"false"):
        raise InvalidRequest(f"'explain' must be a boolean, got '{asked[:40].decode('latin-1')}'")
    return asked == b"true"
