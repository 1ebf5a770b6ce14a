"""A store for looking only: reads go through, and what would be written, deleted or set aside is noted instead.

The real code of a take-over runs on it to find out what it would do, beside a running server and without a trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from indexer.snapshots.store import Store
from schemas.errors import AlreadyExists, StoreUnavailable
from schemas.manifest import ObjectRef

__all__ = ["DryStore"]


class DryStore:
    """`store` as it is, plus a list of what would have been done to it."""

    def __init__(self, store: Store) -> None:
        """Read from `store`."""
        self._store = store
        self._verified: set[ObjectRef] = set()
        # Names that would have been set aside, and those that would have been created or replaced; in order.
        self.set_aside: dict[str, None] = {}
        self.written: dict[str, None] = {}

    def put(self, name: str, chunks: Iterable[bytes | memoryview]) -> ObjectRef:
        """Refuse: nothing that writes objects runs on this store."""
        raise StoreUnavailable(f"{name} is not written: this store is for looking only.")

    def create(self, name: str, data: bytes) -> None:
        """Note that the name would have been created. Raises `AlreadyExists`."""
        if self._store.exists(name):
            raise AlreadyExists(f"Object {name} exists.", name=name)
        self.written[name] = None

    def replace(self, name: str, data: bytes) -> None:
        """Note that the object would have been replaced."""
        self.written[name] = None

    def read(self, name: str) -> bytes:
        """See `Store.read`."""
        return self._store.read(name)

    def open(self, ref: ObjectRef, *, verify: bool) -> memoryview:
        """See `Store.open`. A digest that held once is not computed again: objects never change."""
        view = self._store.open(ref, verify=verify and ref not in self._verified)
        if verify:
            self._verified.add(ref)
        return view

    def exists(self, name: str) -> bool:
        """See `Store.exists`."""
        return self._store.exists(name)

    def list(self, prefix: str, *, is_finished: bool = True) -> list[str]:
        """See `Store.list`."""
        return self._store.list(prefix, is_finished=is_finished)

    def age_seconds(self, name: str) -> float | None:
        """See `Store.age_seconds`."""
        return self._store.age_seconds(name)

    def size_bytes(self, name: str) -> int | None:
        """See `Store.size_bytes`."""
        return self._store.size_bytes(name)

    def delete(self, names: Sequence[str]) -> None:
        """Refuse, as `put` does."""
        raise StoreUnavailable("Nothing is deleted: this store is for looking only.")

    def delete_prefix(self, prefix: str) -> None:
        """Refuse, as `put` does."""
        raise StoreUnavailable(f"{prefix} is not deleted: this store is for looking only.")

    def quarantine(self, name: str) -> None:
        """Note that the object would have been set aside."""
        self.set_aside[name] = None

    def sync(self, names: Iterable[str]) -> None:
        """Refuse, as `put` does."""
        raise StoreUnavailable("Nothing is made durable: this store is for looking only.")
