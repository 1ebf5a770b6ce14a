"""What a client sends over HTTP/2, cut into frames; those of requests that it begins can be held back for a moment.

Frames: https://www.rfc-editor.org/rfc/rfc9113#section-4.1. What is no sound frame is let through as it is: the parser
behind says what is wrong.
"""

from __future__ import annotations

__all__ = [
    "END_HEADERS",
    "END_STREAM",
    "FRAME_HEAD_BYTES",
    "HEADERS",
    "PREFACE",
    "SETTINGS",
    "WINDOW_UPDATE",
    "Frames",
    "frame",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, HEADERS, _RST_STREAM, SETTINGS, _GOAWAY, WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 7, 8, 9
_ACK = END_STREAM = 1
END_HEADERS = 4
FRAME_HEAD_BYTES = 9
# Nobody was allowed larger ones.
_FRAME_BYTES_MAX = 16_384


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame as it is sent."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


class Frames:
    """Takes bytes as they come and gives whole frames, in order.

    `last_stream` is the last request that was begun, 0 before the first; `are_settings_taken` says whether the client
    has confirmed the settings of the server; `held_bytes` are held back now.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._preface_bytes = len(PREFACE)
        self._is_broken = False
        # Requests that the client has begun and not ended, and whether a head is under way.
        self._open: set[int] = set()
        self._is_in_head = False
        self._held: list[bytes] | None = None
        self.held_bytes = 0
        self.last_stream = 0
        self.are_settings_taken = False

    @property
    def is_between_requests(self) -> bool:
        """Whether every request that was let through came to its end, as did every frame."""
        return not self._open and not self._is_in_head and not self._is_broken

    def take(self, data: bytes) -> bytes:
        """Return what can be parsed now, perhaps nothing."""
        if self._is_broken:
            return data
        data = self._rest + data
        at = min(self._preface_bytes, len(data))
        self._preface_bytes -= at
        parts: list[bytes] = []
        begin = 0
        while len(data) - at >= FRAME_HEAD_BYTES:
            end = at + FRAME_HEAD_BYTES + int.from_bytes(data[at : at + 3], "big")
            if end - at > FRAME_HEAD_BYTES + _FRAME_BYTES_MAX:
                self._is_broken = True
                return b"".join([*parts, *self.release(), data[begin:]])
            if end > len(data):
                break
            if self._is_held(data[at + 3], data[at + 4], _stream_of(data, at)):
                assert self._held is not None
                parts.append(data[begin:at])
                self._held.append(data[at:end])
                self.held_bytes += end - at
                begin = end
            at = end
        self._rest = data[at:]
        return b"".join([*parts, data[begin:at]]) if parts else data[begin:at]

    @property
    def is_holding(self) -> bool:
        """Whether requests that are begun are held back."""
        return self._held is not None

    def hold(self) -> None:
        """Keep what belongs to requests that are begun from now on."""
        self._held = []

    def release(self) -> list[bytes]:
        """Return what was kept, as frames, and keep nothing more."""
        held, self._held = self._held or [], None
        self.held_bytes = 0
        for each in held:
            self._note(each[3], each[4], _stream_of(each, 0))
        return held

    def forget(self, stream: int) -> None:
        """Take note that a request was broken off: its client need not end it."""
        self._open.discard(stream)

    def _is_held(self, kind: int, flags: int, stream: int) -> bool:
        # A goodbye does not overtake what was begun before it.
        if self._held is not None and (stream > self.last_stream or kind == _GOAWAY):
            return True
        self._note(kind, flags, stream)
        return False

    def _note(self, kind: int, flags: int, stream: int) -> None:
        if kind in (HEADERS, _CONTINUATION):
            self._is_in_head = not flags & END_HEADERS
        if kind == HEADERS:
            if stream > self.last_stream:
                self.last_stream = stream
                self._open.add(stream)
            if flags & END_STREAM:
                self._open.discard(stream)
        elif (kind == _DATA and flags & END_STREAM) or kind == _RST_STREAM:
            self._open.discard(stream)
        elif kind == SETTINGS and flags & _ACK:
            self.are_settings_taken = True


def _stream_of(data: bytes, at: int) -> int:
    return int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFF_FFFF
