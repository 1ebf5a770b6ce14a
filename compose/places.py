"""How the places that imports may read from are written in the settings."""

from __future__ import annotations

__all__ = ["parse_places"]


def parse_places(value: object) -> object:
    """Turn `"/data/a,s3://bucket/b"` into the places it names; other values go through. Raises `ValueError`."""
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, str):
        value = tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, tuple):
        for part in value:
            if not isinstance(part, str) or not part.startswith(("/", "s3://")):
                raise ValueError(f"{part!r} is neither an absolute directory nor s3://bucket/prefix")
    return value
