"""Where an import reads: a directory of this machine, or a prefix of an S3 bucket. Blocking: call it on a thread.

A client names the place, so it must lie under one that the operator has named in `import_dirs`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from schemas.errors import Forbidden, InvalidRequest
from schemas.import_events import FINGERPRINT_BYTES
from schemas.limits import IMPORT_FILE_BYTES_MAX, IMPORT_FILES_MAX, IMPORT_NAMESPACES_MAX
from schemas.partitions import canonical_namespace
from schemas.records import check_namespace

__all__ = ["ImportFile", "ImportSource", "check_files", "fingerprint", "is_installed", "source_of"]

_S3 = "s3://"
_SUFFIX = ".parquet"
_READ_AHEAD_BYTES = 1024 * 1024
# Neither a link nor a pipe that took the file's place since it was looked at holds up the thread.
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class ImportFile:
    """A file of an import: `path` below its root, such as `tenant-1/part-0.parquet`; `version` changes with it."""

    namespace: str
    path: str
    size: int
    version: str


class ImportSource(Protocol):
    """A root with one folder per namespace."""

    def check(self) -> None:
        """Raise `InvalidRequest` where there is nothing at the root, as far as that can be told at once."""
        ...

    def files(self) -> list[ImportFile]:
        """Return the files in the order of their namespaces and names.

        Raises `InvalidRequest` where the layout is wrong, `Forbidden` where a link leads out of what is allowed.
        """
        ...

    def open(self, file: ImportFile) -> Any:
        """Return a binary file to read and seek in. Raises `InvalidRequest` where it cannot be read."""
        ...

    def verify(self, file: ImportFile) -> None:
        """Raise `InvalidRequest` where the file is another one by now."""
        ...


def source_of(uri: str, allowed: Sequence[str]) -> ImportSource:
    """Return the source that `uri` names.

    Raises `InvalidRequest` where it names none; `Forbidden` where it lies under no entry of `allowed`.
    """
    if uri.startswith(_S3):
        bucket, _, prefix = uri.removeprefix(_S3).partition("/")
        if not bucket:
            raise InvalidRequest(f"uri {uri[:200]!r} names no bucket: wanted is s3://bucket/prefix")
        if {".", ".."} & set(prefix.split("/")):
            raise InvalidRequest(f"uri {uri[:200]!r} has a part that is '.' or '..'")
        if not is_installed("obstore"):
            raise InvalidRequest("Imports from S3 need obstore on the server: install freshet[s3].")
        _check_allowed(uri, any(_is_below(uri, entry) for entry in allowed if entry.startswith(_S3)), allowed)
        return _Bucket(bucket, prefix.strip("/"))
    root = _resolved(Path(_local_path(uri)))
    allowed_roots = [_resolved(Path(entry)) for entry in allowed if not entry.startswith(_S3)]
    _check_allowed(uri, any(root.is_relative_to(entry) for entry in allowed_roots), allowed)
    return _Directory(root, allowed_roots)


def is_installed(module: str) -> bool:
    """Say whether an extra is there, without importing it."""
    return importlib.util.find_spec(module) is not None


def fingerprint(file: ImportFile) -> bytes:
    """Return 8 bytes that another file, or another version of it, does not have."""
    text = f"{file.path}\0{file.size}\0{file.version}"
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=FINGERPRINT_BYTES).digest()


def check_files(files: Sequence[ImportFile]) -> None:
    """Raise `InvalidRequest` where there are no files, too many, or one is too large."""
    if not files:
        raise InvalidRequest(
            f"There are no {_SUFFIX} files: wanted is one folder per namespace (__default__ for the default one) with "
            "Parquet files in it."
        )
    if len(files) > IMPORT_FILES_MAX:
        raise InvalidRequest(f"There are {len(files)} files; the limit is {IMPORT_FILES_MAX}: import several times.")
    namespaces = len({file.namespace for file in files})
    if namespaces > IMPORT_NAMESPACES_MAX:
        raise InvalidRequest(f"There are {namespaces} namespaces; the limit is {IMPORT_NAMESPACES_MAX}.")
    for file in files:
        if file.size > IMPORT_FILE_BYTES_MAX:
            raise InvalidRequest(
                f"File {file.path} is {file.size} bytes long; the limit is {IMPORT_FILE_BYTES_MAX}: split it."
            )


def _local_path(uri: str) -> str:
    """Return the absolute path in `file:///dir` or `/dir`. Raises `InvalidRequest`."""
    path = uri
    if "://" in uri:
        try:
            parts = urlsplit(uri)
        except ValueError as error:
            raise InvalidRequest(f"uri {uri[:200]!r} cannot be read: {error}") from error
        if parts.scheme != "file":
            raise InvalidRequest(
                f"uri {uri[:200]!r} is of no kind that can be imported: known are s3://bucket/prefix, "
                "file:///directory and an absolute path"
            )
        if parts.netloc not in ("", "localhost"):
            raise InvalidRequest(f"uri {uri[:200]!r} names another machine: write file:///directory")
        path = unquote(parts.path)
    if not path.startswith("/") or "\0" in path:
        raise InvalidRequest(f"uri {uri[:200]!r} is no absolute path")
    return path


def _resolved(path: Path) -> Path:
    """Return the path without links. Raises `InvalidRequest` where they lead in a circle."""
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise InvalidRequest(f"Path {str(path)[:200]} cannot be followed: {_said(error)}") from error


def _check_allowed(uri: str, is_allowed: bool, allowed: Sequence[str]) -> None:  # noqa: FBT001 - one fact, one caller
    if not is_allowed:
        named = "it is empty" if not allowed else "none of its entries holds that place"
        raise Forbidden(
            f"The server may not import from {uri[:200]!r}: only what lies under the setting import_dirs "
            f"(FRESHET_IMPORT_DIRS) is read, and {named}."
        )


def _is_below(uri: str, entry: str) -> bool:
    root = entry.rstrip("/")
    return uri == root or uri.startswith(root + "/")


def _namespace(folder: str, path: str) -> str:
    try:
        check_namespace(folder)
    except InvalidRequest as error:
        raise InvalidRequest(f"Folder of {path}: {error.message}") from error
    return canonical_namespace(folder)


class _Directory:
    def __init__(self, root: Path, allowed: Sequence[Path]) -> None:
        self._root = root
        self._allowed = allowed

    def check(self) -> None:
        try:
            is_there = self._root.is_dir()
        except OSError as error:
            raise InvalidRequest(f"Cannot read {str(self._root)[:200]}: {error.strerror}") from error
        if not is_there:
            raise InvalidRequest(f"{str(self._root)[:200]} is no directory on the server.")

    def files(self) -> list[ImportFile]:
        self.check()
        try:
            return list(self._files())
        except OSError as error:
            raise InvalidRequest(f"Cannot list {error.filename}: {error.strerror}") from error

    def _files(self) -> Iterator[ImportFile]:
        for folder in sorted(self._root.iterdir()):
            if not folder.is_dir():
                if folder.name.endswith(_SUFFIX):
                    raise InvalidRequest(
                        f"File {folder.name} lies in no namespace's folder: put it into one (__default__ for the "
                        "default namespace)."
                    )
                continue
            for path in sorted(folder.rglob("*" + _SUFFIX)):
                name = str(path.relative_to(self._root))
                found = self._real(path).stat()
                if stat.S_ISREG(found.st_mode):
                    namespace = _namespace(folder.name, name)
                    yield ImportFile(namespace, name, found.st_size, str(found.st_mtime_ns))

    def open(self, file: ImportFile) -> Any:
        path = self._root / file.path
        try:
            return os.fdopen(os.open(self._real(path), _OPEN_FLAGS), "rb")
        except OSError as error:
            raise InvalidRequest(f"Cannot read {file.path}: {error.strerror}") from error

    def verify(self, file: ImportFile) -> None:
        try:
            found = self._real(self._root / file.path).stat()
        except OSError as error:
            raise InvalidRequest(f"Cannot read {file.path}: {error.strerror}") from error
        if (found.st_size, str(found.st_mtime_ns)) != (file.size, file.version):
            raise _changed(file)

    def _real(self, path: Path) -> Path:
        real = _resolved(path)
        if not any(real.is_relative_to(entry) for entry in self._allowed):
            raise Forbidden(f"File {path.relative_to(self._root)} leads out of what import_dirs allows.")
        return real


class _ObjectFile(io.RawIOBase):
    """An object of a bucket as the kind of file that others read from."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._reader.read(len(buffer))
        except _object_errors() as error:
            raise OSError(_said(error)) from error
        buffer[: len(data)] = data.to_bytes()
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._reader.seek(offset, whence))

    def tell(self) -> int:
        return int(self._reader.tell())

    def close(self) -> None:
        if not self.closed:
            self._reader.close()
        super().close()


class _Bucket:
    def __init__(self, bucket: str, prefix: str) -> None:
        self._name = f"{_S3}{bucket}/{prefix}"
        self._bucket = bucket
        self._prefix = prefix
        self._opened: Any = None

    @property
    def _store(self) -> Any:
        if self._opened is None:
            from obstore.store import S3Store  # noqa: PLC0415 # an extra

            # Endpoint, region and credentials are those of the environment's AWS_ variables. An endpoint without TLS
            # is the operator's own.
            self._opened = S3Store(self._bucket, client_options={"allow_http": True})
        return self._opened

    def check(self) -> None:
        """Asking the bucket may take long: its runner does."""

    def files(self) -> list[ImportFile]:
        found: list[ImportFile] = []
        prefix = f"{self._prefix}/" if self._prefix else ""
        try:
            for page in self._store.list(prefix or None):
                for each in page:
                    path = each["path"].removeprefix(prefix)
                    folder, slash, _ = path.partition("/")
                    if not path.endswith(_SUFFIX):
                        continue
                    if not slash:
                        raise InvalidRequest(f"File {path} lies in no namespace's folder.")
                    version = str(each.get("e_tag") or each["last_modified"])
                    found.append(ImportFile(_namespace(folder, path), path, each["size"], version))
        except _object_errors() as error:
            raise InvalidRequest(f"Cannot list {self._name}: {_said(error)}") from error
        return sorted(found, key=lambda file: (file.path.partition("/")[0], file.path))

    def open(self, file: ImportFile) -> Any:
        import obstore  # noqa: PLC0415 # an extra

        try:
            return _ObjectFile(obstore.open_reader(self._store, self._key(file), buffer_size=_READ_AHEAD_BYTES))
        except _object_errors() as error:
            raise InvalidRequest(f"Cannot read {self._name}/{file.path}: {_said(error)}") from error

    def verify(self, file: ImportFile) -> None:
        import obstore  # noqa: PLC0415 # an extra

        try:
            found = obstore.head(self._store, self._key(file))
        except _object_errors() as error:
            raise InvalidRequest(f"Cannot read {self._name}/{file.path}: {_said(error)}") from error
        if (found["size"], str(found.get("e_tag") or found["last_modified"])) != (file.size, file.version):
            raise _changed(file)

    def _key(self, file: ImportFile) -> str:
        return f"{self._prefix}/{file.path}" if self._prefix else file.path


def _changed(file: ImportFile) -> InvalidRequest:
    return InvalidRequest(f"File {file.path} has changed since the import began. What was imported until then stays.")


def _object_errors() -> tuple[type[Exception], ...]:
    from obstore.exceptions import BaseError  # noqa: PLC0415 # an extra

    return (BaseError, OSError, ValueError)


def _said(error: Exception) -> str:
    """Return the first line of what the library says; the rest is a dump of its state."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
