"""Several API processes as one: each has a door of its own, a Unix socket, at which it serves what its ports do."""

from __future__ import annotations

import asyncio
from pathlib import Path

from producer.pokes import socket_path

__all__ = ["api_name", "door_of", "get"]

_ANSWER_SECONDS = 2.0


def api_name(worker: int) -> str:
    """Return the name of an API process: `api` for the first, which owns the embedded log, then `api-1`."""
    return f"api-{worker}" if worker else "api"


def door_of(run_directory: Path, worker: int) -> str:
    """Return the Unix socket on which an API process serves what it serves on its ports."""
    return socket_path(run_directory, f"door-{worker}")


async def get(door: str, path: str) -> tuple[int, bytes]:
    """Ask for `path` at a door; return status and body. Raises `OSError`, `TimeoutError` where no answer comes."""
    async with asyncio.timeout(_ANSWER_SECONDS):
        reader, writer = await asyncio.open_unix_connection(door)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        finally:
            writer.close()
    words = head.split(b" ", 2)
    if len(words) < 3 or not words[1].isdigit():
        raise ConnectionResetError(f"The answer at {door} broke off.")
    return int(words[1]), body
