"""What is done with the tables of the embedded log besides appending: find, make and drop logs, read their ends.

Every function runs inside a transaction of its caller.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence

__all__ = ["ends_of", "find_log", "forget_log", "make_log", "sweep_some"]

# Rows deleted in one transaction of a drop, so that appends to other logs get their turn between them.
_DROP_ROWS = 200


def find_log(connection: sqlite3.Connection, name: str, log_id: str | None) -> tuple[str, Sequence[int]] | None:
    """Return identity and slots of a log; `log_id` None means whichever has that name. None where there is none."""
    if log_id is None:
        row = connection.execute("SELECT log_id FROM logs WHERE name = ?", (name,)).fetchone()
    else:
        row = connection.execute("SELECT log_id FROM logs WHERE log_id = ?", (log_id,)).fetchone()
    if row is None:
        return None
    slots = connection.execute("SELECT slot FROM partitions WHERE log_id = ? ORDER BY partition", row).fetchall()
    return row[0], [slot for (slot,) in slots]


def make_log(
    connection: sqlite3.Connection, name: str, log_id: str | None, partitions: int
) -> tuple[str, Sequence[int]]:
    """Make the log unless another process has; return its identity, new where None was given, and its slots."""
    found = find_log(connection, name, log_id)
    if found is not None:
        return found
    log_id = log_id or secrets.token_urlsafe(16)
    connection.execute("INSERT INTO logs VALUES (?, ?, ?)", (log_id, name, partitions))
    slots: list[int] = []
    for partition in range(partitions):
        cursor = connection.execute(
            "INSERT INTO partitions (log_id, partition, next_offset, time_ms) VALUES (?, ?, 0, 0)", (log_id, partition)
        )
        assert cursor.lastrowid is not None
        slots.append(cursor.lastrowid)
        connection.execute(
            f"CREATE TABLE events_{cursor.lastrowid} (final INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL,"
            " count INTEGER NOT NULL, crc INTEGER NOT NULL, data BLOB NOT NULL)"
        )
    return log_id, slots


def forget_log(connection: sqlite3.Connection, log_id: str) -> None:
    """Take the log out of the tables; its rows are left to `sweep_some`."""
    connection.execute("DELETE FROM logs WHERE log_id = ?", (log_id,))
    connection.execute("DELETE FROM partitions WHERE log_id = ?", (log_id,))


def sweep_some(connection: sqlite3.Connection) -> bool:
    """Delete some rows of a table that belongs to no log, or the empty table; return whether there was one."""
    orphan = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'events_[0-9]*'"
        " AND CAST(substr(name, 8) AS INTEGER) NOT IN (SELECT slot FROM partitions) LIMIT 1"
    ).fetchone()
    if orphan is None:
        return False
    table = str(orphan[0])
    deleted = connection.execute(
        # The table's name is ours.
        f"DELETE FROM {table} WHERE final IN (SELECT final FROM {table} ORDER BY final LIMIT {_DROP_ROWS})"  # noqa: S608
    ).rowcount
    if deleted < _DROP_ROWS:
        connection.execute(f"DROP TABLE {table}")
    return True


def ends_of(connection: sqlite3.Connection, log_id: str) -> list[int]:
    """Return the offset after the last record of every partition; none for a log that is not there."""
    rows = connection.execute("SELECT next_offset FROM partitions WHERE log_id = ? ORDER BY partition", (log_id,))
    return [end for (end,) in rows]
