"""The writes of the crash tests: requests, each with what it does to its writer's records if it is carried out.

A record's vector carries the number of the write that gave it, and so does its metadata: one that is put together from
two writes shows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.crash.history import Row, State, Step, Violation

__all__ = ["Target", "Write", "make_write", "state_of", "upsert"]

_TAGS = 4
# Upsert, values and metadata of one, metadata of one, delete by id, metadata by filter, delete by filter, delete all.
_WEIGHTS = (40, 12, 6, 12, 10, 10, 4)


@dataclass(frozen=True, slots=True)
class Target:
    """Whose records in which namespace, by the writer's `stamp`-th write; bytes of filling per record."""

    writer: int
    namespace: str
    stamp: int
    filling_bytes: int = 0

    def id_of(self, slot: int) -> str:
        return f"w{self.writer}-{slot}"


@dataclass(frozen=True, slots=True)
class Write:
    """A request, and what it does to the writer's records if it is carried out."""

    method: str
    path: str
    body: dict[str, Any] | None
    steps: Sequence[Step]
    # Records that it should say it matched, as a function of the state before.
    matched: Callable[[State], int] | None = None


def _put(name: str, row: Row) -> Step:
    return lambda state: state.__setitem__(name, row)


def _remove(name: str) -> Step:
    def step(state: dict[str, Row]) -> None:
        state.pop(name, None)

    return step


def _change(name: str, **fields: int) -> Step:
    def step(state: dict[str, Row]) -> None:
        if name in state:
            state[name] = replace(state[name], **fields)

    return step


def _mark_where(tag: int, mark: int) -> Step:
    def step(state: dict[str, Row]) -> None:
        for name, row in state.items():
            if row.tag == tag:
                state[name] = replace(row, mark=mark)

    return step


def _remove_where(tag: int) -> Step:
    def step(state: dict[str, Row]) -> None:
        for name in [name for name, row in state.items() if row.tag == tag]:
            del state[name]

    return step


def make_write(rng: random.Random, target: Target, slots: Sequence[int], *, is_own: bool) -> Write:
    """Return a random write on the records of `slots`; only a namespace of the writer's own is emptied or deleted."""
    tag = rng.randrange(_TAGS)
    stamp, namespace, name = target.stamp, target.namespace, target.id_of(slots[0])
    where = {"owner": target.writer, "tag": tag}
    body: dict[str, Any] = {"namespace": namespace}
    match rng.choices(range(7), _WEIGHTS if is_own else (*_WEIGHTS[:6], 0))[0]:
        case 0:
            return upsert(target, slots, tag)
        case 1:
            body |= {"id": name, "values": _vector(target.writer, slots[0], stamp), "setMetadata": {"stamp": stamp}}
            return Write("POST", "/vectors/update", body, [_change(name, stamp=stamp)])
        case 2:
            body |= {"id": name, "setMetadata": {"tag": tag}}
            return Write("POST", "/vectors/update", body, [_change(name, tag=tag)])
        case 3:
            ids = [target.id_of(slot) for slot in slots]
            return Write("POST", "/vectors/delete", body | {"ids": ids}, [_remove(each) for each in ids])
        case 4:
            body |= {"filter": where, "setMetadata": {"mark": stamp}}
            return Write("POST", "/vectors/update", body, [_mark_where(tag, stamp)], lambda state: _tagged(state, tag))
        case 5:
            return Write("POST", "/vectors/delete", body | {"filter": where}, [_remove_where(tag)])
        case _ if stamp % 2:
            return Write("POST", "/vectors/delete", body | {"deleteAll": True}, [dict.clear])
        case _:
            return Write("DELETE", f"/namespaces/{namespace}", None, [dict.clear])


def upsert(target: Target, slots: Sequence[int], tag: int) -> Write:
    """Return an upsert of the records of `slots`."""
    metadata: dict[str, Any] = {"owner": target.writer, "tag": tag, "stamp": target.stamp, "mark": 0}
    if target.filling_bytes:
        metadata["filling"] = "x" * target.filling_bytes
    ids = [target.id_of(slot) for slot in slots]
    records = [
        {"id": name, "values": _vector(target.writer, slot, target.stamp), "metadata": metadata}
        for name, slot in zip(ids, slots, strict=True)
    ]
    steps = [_put(name, Row(target.stamp, 0, tag)) for name in ids]
    return Write("POST", "/vectors/upsert", {"namespace": target.namespace, "vectors": records}, steps)


def _tagged(state: State, tag: int) -> int:
    return sum(row.tag == tag for row in state.values())


def _vector(writer: int, slot: int, stamp: int) -> list[int]:
    return [stamp, writer, slot, 1]


def state_of(records: Sequence[dict[str, Any]]) -> dict[str, Row]:
    """Return the records of an answer as a state. Raises `Violation` for a record of two writes, or a double one."""
    state: dict[str, Row] = {}
    for record in records:
        name, metadata = record["id"], record["metadata"]
        writer, slot = name[1:].split("-")
        values = [int(value) for value in record["values"]]
        if values != _vector(int(writer), int(slot), int(metadata["stamp"])):
            raise Violation(f"record {name} has the vector {values} and the metadata {metadata}: not of one write")
        if name in state:
            raise Violation(f"record {name} stands twice in one answer")
        state[name] = Row(values[0], int(metadata["mark"]), int(metadata["tag"]))
    return state
