"""Methods that answer several times, or take several messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from query_api.grpc.frames import Messages

__all__ = ["Answering", "StreamMethod"]

# Sends one message.
Answering = Callable[[bytes], Awaitable[None]]
# Takes messages, and answers until it returns.
StreamMethod = Callable[[Messages, Answering], Awaitable[None]]
