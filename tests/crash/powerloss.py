"""Records every change and sync made to a directory tree by other processes, and replays the record up to any point.

`powerloss.c` makes the record, below the program under test; `disk.py` says what a power loss could leave.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.crash.disk import Directory, Disk, File, Node, Sync

__all__ = ["Recorder", "compile_recorder"]

_HEADER = struct.Struct("<IIQQqqIIQ")
_MAGIC = 0x534C5750
_NOREPLACE, _EXCHANGE = 1, 2
_SOURCE = Path(__file__).with_name("powerloss.c")


def compile_recorder(folder: Path) -> Path | None:
    """Compile the recorder into `folder`; None where there is no C compiler. Raises where it does not compile."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    library = folder / "powerloss.so"
    command = [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)]
    subprocess.run([*command, "-ldl", "-lpthread"], check=True)
    return library


class Recorder:
    """The record of one tree, from what it holds now (taken as durable) on. `log` must lie outside of `tree`."""

    def __init__(self, library: Path, tree: Path, log: Path) -> None:
        self.tree = tree.resolve()
        self._library, self._log, self._lock = library, log, Path(f"{log}.lock")
        self._log.write_bytes(b"")
        self._lock.write_bytes(bytes(4096))
        self._inodes: dict[int, Node] = {}
        self._base = self._read_base(self.tree)

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment variables under which processes are recorded."""
        return {"LD_PRELOAD": str(self._library), "POWERLOSS_DIR": str(self.tree), "POWERLOSS_LOG": str(self._log)}

    @property
    def seq(self) -> int:
        """Number of the newest record."""
        return int.from_bytes(self._lock.read_bytes()[8:16], "little")

    def replay(self, *, drop: Callable[[Sync], bool] | None = None, until: int | None = None) -> Disk:
        """Return the disk after the record (up to the number `until`), as if the syncs that `drop` names never were."""
        return _Replay(self._base, self._inodes, self.tree, drop or (lambda _: False)).run(self._records(until))

    def _records(self, until: int | None) -> Iterator[_Record]:
        size = int.from_bytes(self._lock.read_bytes()[:8], "little")
        if not size:
            return
        with self._log.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as view:
            results = {record.a: record.b for record in _scan(view, size) if record.kind == "R"}
            for record in _scan(view, size):
                if until is not None and record.seq > until:
                    return
                result = results.get(record.seq)
                if result is None:
                    yield record
                elif result > 0:
                    yield _Record(record.kind, record.seq, record.inode, record.a, record.b, data=record.data[:result])

    def _read_base(self, folder: Path) -> Directory:
        node = Directory()
        for entry in os.scandir(folder):
            child: Node
            if entry.is_dir(follow_symlinks=False):
                child = self._read_base(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                known = self._inodes.get(entry.inode())
                child = known or File(bytearray(Path(entry.path).read_bytes()))
                self._inodes[entry.inode()] = child
            else:
                continue
            node.durable[entry.name] = child
        node.present = dict(node.durable)
        return node


@dataclass(frozen=True, slots=True)
class _Record:
    kind: str
    seq: int
    inode: int
    a: int
    b: int
    path: str = ""
    second: str = ""
    data: bytes = b""


def _scan(view: mmap.mmap, size: int) -> Iterator[_Record]:
    at = 0
    while at < size:
        magic, kind, seq, inode, a, b, path_bytes, second_bytes, data_bytes = _HEADER.unpack_from(view, at)
        assert magic == _MAGIC, f"the record is damaged at byte {at}"
        path_end = at + _HEADER.size + path_bytes
        data_begin = path_end + second_bytes
        path = os.fsdecode(view[at + _HEADER.size : path_end])
        second = os.fsdecode(view[path_end:data_begin])
        at = data_begin + data_bytes
        yield _Record(chr(kind), seq, inode, a, b, path, second, view[data_begin:at])


class _Replay:
    """Walks the record; each step does to the model what the system call did to the tree."""

    def __init__(self, base: Directory, inodes: Mapping[int, Node], tree: Path, drop: Callable[[Sync], bool]) -> None:
        copies: dict[int, Node] = {}
        self._root = _copy(base, copies)
        self._inodes = {inode: copies[id(node)] for inode, node in inodes.items()}
        self._tree = str(tree)
        self._drop = drop
        self._begun: dict[int, tuple[str, str, list[Node]]] = {}
        self._syncs: list[Sync] = []
        self._counts = {"file": 0, "directory": 0}
        self._mapped: set[str] = set()
        self._live: dict[int, Node] = {id(node): node for node in copies.values()}

    def run(self, records: Iterator[_Record]) -> Disk:
        steps = {
            "C": self._open,
            "B": self._bind,
            "W": self._write,
            "A": self._write,
            "T": self._truncate,
            "L": self._link,
            "N": self._move,
            "U": self._unlink,
            "D": self._mkdir,
            "F": self._begin,
            "G": self._begin,
            "S": self._begin,
            "E": self._end,
            "M": self._map,
        }
        for record in records:
            if record.kind in steps:
                steps[record.kind](record)
        assert isinstance(self._root, Directory)
        return Disk(self._root, self._syncs, self._mapped)

    def _relative(self, path: str) -> str:
        return path[len(self._tree) :].strip("/")

    def _at(self, path: str) -> Node | None:
        node: Node | None = self._root
        for part in filter(None, self._relative(path).split("/")):
            node = node.present.get(part) if isinstance(node, Directory) else None
        return node

    def _place(self, path: str) -> tuple[Directory | None, str]:
        folder, _, name = path.rpartition("/")
        node = self._at(folder) if len(path) > len(self._tree) else None
        return (node if isinstance(node, Directory) else None), name

    def _new(self, node: Node) -> Node:
        self._live[id(node)] = node
        return node

    def _open(self, record: _Record) -> None:
        node = self._at(record.path)
        folder, name = self._place(record.path)
        if node is None and folder is not None and record.a & os.O_CREAT:
            folder.change(record.seq, (name, self._new(File())))
        elif isinstance(node, File) and record.a & os.O_TRUNC and not record.a & os.O_EXCL:
            node.pending.append((record.seq, 0, 0))

    def _bind(self, record: _Record) -> None:
        node = self._at(record.path) if record.path else None
        folder, name = self._place(record.path) if record.path else (None, "")
        if node is None:
            node = self._new(File())
            if folder is not None:
                folder.change(record.seq, (name, node))
        self._inodes[record.inode] = node

    def _write(self, record: _Record) -> None:
        node = self._inodes.get(record.inode)
        if isinstance(node, File):
            node.pending.append((record.seq, None if record.kind == "A" else record.a, record.data))

    def _truncate(self, record: _Record) -> None:
        node = self._inodes.get(record.inode)
        if isinstance(node, File):
            node.pending.append((record.seq, 0, record.a))

    def _link(self, record: _Record) -> None:
        node = (self._at(record.path) if record.path else None) or self._inodes.get(record.inode)
        folder, name = self._place(record.second)
        if node is not None and folder is not None and name not in folder.present:
            folder.change(record.seq, (name, node))

    def _move(self, record: _Record) -> None:
        source, source_name = self._place(record.path)
        target, target_name = self._place(record.second)
        if source is None or target is None or source_name not in source.present:
            return
        node, other = source.present[source_name], target.present.get(target_name)
        if node is other or (record.a & _NOREPLACE and other is not None):
            return
        back = (source_name, other if record.a & _EXCHANGE else None)
        if source is target:
            source.change(record.seq, back, (target_name, node))
        else:
            source.change(record.seq, back)
            target.change(record.seq, (target_name, node))

    def _unlink(self, record: _Record) -> None:
        folder, name = self._place(record.path)
        if folder is not None and name in folder.present:
            folder.change(record.seq, (name, None))

    def _mkdir(self, record: _Record) -> None:
        folder, name = self._place(record.path)
        if folder is not None and name not in folder.present:
            folder.change(record.seq, (name, self._new(Directory())))

    def _begin(self, record: _Record) -> None:
        kind = "file" if record.kind == "F" else "directory"
        node = self._inodes.get(record.inode) if record.kind == "F" else self._at(record.path)
        nodes = list(self._live.values()) if record.kind == "S" else [node] if node is not None else []
        self._begun[record.seq] = (kind, self._relative(record.path), nodes)

    def _end(self, record: _Record) -> None:
        if record.a not in self._begun:
            return
        kind, path, nodes = self._begun.pop(record.a)
        self._counts[kind] += 1
        sync = Sync(kind, self._counts[kind], path)
        self._syncs.append(sync)
        if not self._drop(sync):
            for node in nodes:
                node.settle(record.a)

    def _map(self, record: _Record) -> None:
        self._mapped.add(self._relative(record.path))


def _copy(node: Node, copies: dict[int, Node]) -> Node:
    if id(node) in copies:
        return copies[id(node)]
    if isinstance(node, File):
        copies[id(node)] = File(bytearray(node.durable))
    else:
        names = {name: _copy(child, copies) for name, child in node.durable.items()}
        copies[id(node)] = Directory(names, dict(names))
    return copies[id(node)]
