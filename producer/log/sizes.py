"""What every log checks before it takes an append."""

from __future__ import annotations

from collections.abc import Sequence

from producer.log.protocol import LogRecord
from schemas.errors import PayloadTooLarge
from schemas.limits import APPEND_BYTES_MAX

__all__ = ["check_append"]


def check_append(records: Sequence[LogRecord]) -> int:
    """Return the bytes of one append: keys, values, header names and values.

    Raises `PayloadTooLarge` above `limits.APPEND_BYTES_MAX`.
    """
    assert records, "an append carries at least one record"
    size = sum(
        len(r.key or b"") + len(r.value) + sum(len(name) + len(value) for name, value in r.headers) for r in records
    )
    if size > APPEND_BYTES_MAX:
        raise PayloadTooLarge(
            f"One append carries {size} bytes; at most {APPEND_BYTES_MAX} are taken. Send fewer records at once.",
            size_bytes=size,
            limit_bytes=APPEND_BYTES_MAX,
        )
    return size
