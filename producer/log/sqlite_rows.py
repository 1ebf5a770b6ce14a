"""Bytes of the embedded log: many records in one row, so that a commit costs a few statements however many they are.

A row's `data` is a run of records, each `<key length or -1: i32> <headers length: u32> <value length: u32> key headers
value`, little-endian; `headers` is a run of `<name length: u16> <value length: u32> name value`. Records delimit
themselves, so runs are joined by putting them end to end.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from producer.log.protocol import LogRecord, StoredRecord
from schemas.errors import CorruptData

__all__ = ["Run", "joined", "pack", "unpack"]

_RECORD = struct.Struct("<iII")
_HEADER = struct.Struct("<HI")


@dataclass(frozen=True, slots=True)
class Run:
    """`count` packed records."""

    count: int
    data: bytes


def pack(records: Sequence[LogRecord], *, run_bytes: int) -> list[Run]:
    """Pack `records` in order into runs of about `run_bytes`, at least one record each."""
    runs: list[Run] = []
    parts: list[bytes] = []
    count = size = 0
    for record in records:
        key = record.key
        headers = b"".join(_pack_header(name, value) for name, value in record.headers) if record.headers else b""
        parts += (
            _RECORD.pack(-1 if key is None else len(key), len(headers), len(record.value)),
            key or b"",
            headers,
            record.value,
        )
        count += 1
        size += _RECORD.size + len(parts[-3]) + len(headers) + len(record.value)
        if size >= run_bytes:
            runs.append(Run(count, b"".join(parts)))
            parts = []
            count = size = 0
    if count:
        runs.append(Run(count, b"".join(parts)))
    return runs


def joined(runs: Sequence[Run], *, run_bytes: int) -> list[Run]:
    """Join neighbouring runs while the result stays within `run_bytes`; order is kept."""
    result: list[Run] = []
    waiting: list[Run] = []
    size = 0
    for run in runs:
        if waiting and size + len(run.data) > run_bytes:
            result.append(_join(waiting))
            waiting = []
            size = 0
        waiting.append(run)
        size += len(run.data)
    if waiting:
        result.append(_join(waiting))
    return result


def unpack(data: bytes, *, begin_offset: int, time_ms: int) -> list[StoredRecord]:
    """Unpack the records of a row whose first record has `begin_offset`.

    Raises `CorruptData` where the bytes do not add up.
    """
    records: list[StoredRecord] = []
    at = 0
    try:
        while at < len(data):
            key_length, headers_length, value_length = _RECORD.unpack_from(data, at)
            at += _RECORD.size
            key = None
            if key_length >= 0:
                key = data[at : at + key_length]
                at += key_length
            headers = _unpack_headers(data[at : at + headers_length]) if headers_length else ()
            at += headers_length
            value = data[at : at + value_length]
            at += value_length
            records.append(StoredRecord(begin_offset + len(records), time_ms, key, value, headers))
    except (struct.error, UnicodeDecodeError) as error:
        raise CorruptData(f"The log's row at offset {begin_offset} is malformed.", offset=begin_offset) from error
    if at != len(data):
        raise CorruptData(f"The log's row at offset {begin_offset} is cut short.", offset=begin_offset)
    return records


def _join(runs: Sequence[Run]) -> Run:
    if len(runs) == 1:
        return runs[0]
    return Run(sum(run.count for run in runs), b"".join(run.data for run in runs))


def _pack_header(name: str, value: bytes) -> bytes:
    encoded = name.encode()
    return _HEADER.pack(len(encoded), len(value)) + encoded + value


def _unpack_headers(data: bytes) -> tuple[tuple[str, bytes], ...]:
    headers: list[tuple[str, bytes]] = []
    at = 0
    while at < len(data):
        name_length, value_length = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        name = data[at : at + name_length].decode()
        at += name_length
        headers.append((name, data[at : at + value_length]))
        at += value_length
    return tuple(headers)
