"""A directory tree of which a part is durable, and what a power loss could leave of it.

The model is strict, as POSIX allows and journals rarely do: a file keeps only what was written before the begin of a
sync of that file which ended; a directory keeps only the names that were made, moved or removed before such a sync of
that directory. A sync of a new file says nothing about its name, a sync of a directory nothing about what lies inside
its sub-directories, and a removed name may come back.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Directory", "Disk", "File", "Loss", "Node", "Sync", "tree_of"]

_BLOCK_BYTES = 4096
_DROPPED_SUFFIXES = ("-shm",)  # SQLite makes its shared memory anew


@dataclass(frozen=True, slots=True)
class Sync:
    """One finished sync. `number` counts from 1 among the syncs of its kind; `path` is relative to the tree."""

    kind: str  # file | directory
    number: int
    path: str


@dataclass(slots=True)
class File:
    """A file: what is durable, and the changes since, oldest first.

    A change is (sequence number, offset, bytes), offset None for the whole, or (sequence number, 0, new size).
    """

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, int | None, bytes | int]] = field(default_factory=list)

    def settle(self, before: int) -> None:
        keep = [change for change in self.pending if change[0] >= before]
        for change in self.pending[: len(self.pending) - len(keep)]:
            _apply(self.durable, change[1], change[2])
        self.pending = keep


@dataclass(slots=True)
class Directory:
    """A directory: its durable and its present names, and the changes between the two.

    A change is (sequence number, names set or removed, which happen together or not at all).
    """

    durable: dict[str, Node] = field(default_factory=dict)
    present: dict[str, Node] = field(default_factory=dict)
    pending: list[tuple[int, tuple[tuple[str, Node | None], ...]]] = field(default_factory=list)

    def change(self, seq: int, *names: tuple[str, Node | None]) -> None:
        self.pending.append((seq, names))
        _rename(self.present, names)

    def settle(self, before: int) -> None:
        keep = [change for change in self.pending if change[0] >= before]
        for _, names in self.pending[: len(self.pending) - len(keep)]:
            _rename(self.durable, names)
        self.pending = keep


Node = File | Directory


def _apply(content: bytearray, offset: int | None, data: bytes | int) -> None:
    if isinstance(data, int):
        del content[data:]
        content.extend(bytes(data - len(content)))
    elif offset is None:
        content[:] = data
    else:
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(data)] = data


def _rename(names: dict[str, Node], changes: tuple[tuple[str, Node | None], ...]) -> None:
    for name, node in changes:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


@dataclass(frozen=True, slots=True)
class Loss:
    """How much of what was not synced is lost: nothing, everything, file contents only, or a random part of it."""

    names: Callable[[Directory], dict[str, Node]]
    content: Callable[[File], bytes]

    @classmethod
    def none(cls) -> Loss:
        """Keep all: what SIGKILL leaves."""
        return cls(lambda directory: directory.present, _all)

    @classmethod
    def worst(cls) -> Loss:
        """Lose every name and every byte that was not synced."""
        return cls(lambda directory: directory.durable, lambda file: bytes(file.durable))

    @classmethod
    def contents(cls) -> Loss:
        """Keep the names and lose the bytes: files of length 0, as after a rename without a sync."""
        return cls(lambda directory: directory.present, lambda file: bytes(file.durable))

    @classmethod
    def some(cls, rng: random.Random) -> Loss:
        """Lose a part: changes undone in any order, files cut anywhere, blocks old, new or zero."""
        return cls(lambda directory: _some_names(directory, rng), lambda file: _some_content(file, rng))


def _all(file: File) -> bytes:
    content = bytearray(file.durable)
    for _, offset, data in file.pending:
        _apply(content, offset, data)
    return bytes(content)


def _some_names(directory: Directory, rng: random.Random) -> dict[str, Node]:
    pending = [names for _, names in directory.pending]
    match rng.randrange(4):
        case 0:
            kept = pending
        case 1:
            kept = []
        case 2:
            kept = pending[: rng.randint(0, len(pending))]
        case _:
            kept = [names for names in pending if rng.random() < 0.5]
    result = dict(directory.durable)
    for names in kept:
        _rename(result, names)
    return result


def _some_content(file: File, rng: random.Random) -> bytes:
    if not file.pending:
        return bytes(file.durable)
    content = bytearray(file.durable)
    match rng.randrange(5):
        case 0:
            return _all(file)
        case 1:
            return bytes(content)
        case 2:  # in order, the last one cut
            kept = rng.randint(0, len(file.pending) - 1)
            for _, offset, data in file.pending[:kept]:
                _apply(content, offset, data)
            _, offset, data = file.pending[kept]
            if offset is not None and isinstance(data, bytes):
                _apply(content, offset, data[: rng.randint(0, len(data))])
        case 3:  # any of them
            for _, offset, data in file.pending:
                if rng.random() < 0.5:
                    _apply(content, offset, data)
        case _:
            return _some_blocks(content, _all(file), rng)
    return bytes(content)


def _some_blocks(old: bytearray, new: bytes, rng: random.Random) -> bytes:
    size = rng.choice((len(old), len(new), rng.randint(min(len(old), len(new)), max(len(old), len(new)))))
    result = bytearray(size)
    for start in range(0, size, _BLOCK_BYTES):
        end = min(start + _BLOCK_BYTES, size)
        sources = [bytes(old[start:end]), new[start:end]]
        if start >= len(old):
            sources.append(bytes(end - start))
        chosen = rng.choice(sources)
        result[start : start + len(chosen)] = chosen
    return bytes(result)


class Disk:
    """A tree as the record tells it: what is durable, and what is present besides."""

    def __init__(self, root: Directory, syncs: list[Sync], mapped: set[str]) -> None:
        self._root = root
        self.syncs = syncs
        self.mapped = mapped

    def tree(self, loss: Loss) -> dict[str, bytes | None]:
        """Return what is left: relative path -> content, None for a directory.

        Raises `AssertionError` where a file was written through a shared mapping, which the record cannot follow.
        """
        return {path: content for path, content, _ in self._walk(loss)}

    def restore(self, target: Path, loss: Loss) -> None:
        """Replace the directory `target` by what is left."""
        left = list(self._walk(loss))
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        first: dict[int, Path] = {}
        for path, content, identity in left:
            place = target / path
            if content is None:
                place.mkdir()
            elif identity in first:
                os.link(first[identity], place)
            else:
                place.write_bytes(content)
                first[identity] = place

    def _walk(self, loss: Loss) -> Iterator[tuple[str, bytes | None, int]]:
        assert not self.mapped, f"written through a shared mapping, which is not modelled: {sorted(self.mapped)}"
        contents: dict[int, bytes] = {}
        stack: list[tuple[str, Node]] = [("", self._root)]
        visited: set[int] = set()
        while stack:
            path, node = stack.pop()
            if isinstance(node, File):
                if path.endswith(_DROPPED_SUFFIXES):
                    continue
                if id(node) not in contents:
                    contents[id(node)] = loss.content(node)
                yield path, contents[id(node)], id(node)
            elif id(node) not in visited:  # a directory that moved may be seen at both places
                visited.add(id(node))
                if path:
                    yield path, None, id(node)
                names = loss.names(node)
                stack.extend((f"{path}/{name}".lstrip("/"), names[name]) for name in sorted(names))


def tree_of(folder: Path) -> dict[str, bytes | None]:
    """Return what really lies in `folder`, in the form of `Disk.tree`; sockets and SQLite's shared memory left out."""
    found: dict[str, bytes | None] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            found[name] = None
        elif path.is_file() and not name.endswith(_DROPPED_SUFFIXES):
            found[name] = path.read_bytes()
    return found
