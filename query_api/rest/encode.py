"""From matches and records to response bytes: one encode; float32 printed as its shortest decimal."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import orjson

from indexer.segments.search import SliceReport
from query_api.questions import QueryResult
from query_api.reads import units_of_fetch
from schemas.records import Record

__all__ = ["encode", "encode_fetch", "encode_query", "explained"]


def encode(body: Mapping[str, object]) -> bytes:
    """Return JSON bytes; float32 arrays and scalars as their shortest decimals."""
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_query(result: QueryResult, namespace: str) -> bytes:
    """Return the body of an answer to `POST /query`; `values` is empty where it was not asked for."""
    found: list[dict[str, object]] = []
    for match in result.matches:
        item: dict[str, object] = {"id": match.id, "score": np.float32(match.score)}
        if match.record is None:
            item["values"] = []
        else:
            _add_parts(item, match.record)
        found.append(item)
    body: dict[str, object] = {"matches": found, "namespace": namespace, "usage": {"readUnits": 1}}
    if result.explain is not None:
        body["explain"] = [explained(report) for report in result.explain]
    return encode(body)


def encode_fetch(records: Mapping[str, Record], namespace: str, *, asked: int, next_page: str | None = None) -> bytes:
    """Return the body of an answer to `GET /vectors/fetch`, or of a page of a fetch by metadata that has a next one."""
    vectors: dict[str, dict[str, object]] = {}
    for name, record in records.items():
        item: dict[str, object] = {"id": name}
        _add_parts(item, record)
        vectors[name] = item
    units = units_of_fetch(asked)
    body: dict[str, object] = {"vectors": vectors, "namespace": namespace, "usage": {"readUnits": units}}
    if next_page is not None:
        body["pagination"] = {"next": next_page}
    return encode(body)


def explained(report: SliceReport) -> dict[str, object]:
    """Return how one segment was searched."""
    return {
        "segment": report.segment_id,
        "plan": report.plan,
        "fellBack": report.fell_back,
        "rows": report.rows,
        "allowedRows": report.allowed,
        "candidates": report.candidates,
        "milliseconds": round(report.milliseconds, 4),
    }


def _add_parts(item: dict[str, object], record: Record) -> None:
    # The official clients need `values` present, also where a record has none.
    item["values"] = [] if record.values is None else np.ascontiguousarray(np.asarray(record.values))
    if record.sparse is not None:
        item["sparseValues"] = {
            "indices": np.ascontiguousarray(record.sparse.indices),
            "values": np.ascontiguousarray(record.sparse.values),
        }
    if record.metadata:
        item["metadata"] = orjson.Fragment(record.metadata)
