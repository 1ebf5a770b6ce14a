"""Which partition a namespace lies in: a wire contract, equal to Kafka's default partitioner.

Source: org.apache.kafka.common.utils.Utils.murmur2 and BuiltInPartitioner.partitionForKey.
"""

from __future__ import annotations

from functools import lru_cache

__all__ = ["DEFAULT_NAMESPACE", "canonical_namespace", "murmur2", "partition_of"]

DEFAULT_NAMESPACE = "__default__"
_MASK = 0xFFFFFFFF
_M = 0x5BD1E995


def canonical_namespace(name: str | None) -> str:
    """Return the one name of a namespace: absent and empty mean the default one."""
    return name or DEFAULT_NAMESPACE


def murmur2(data: bytes) -> int:
    """Return Kafka's 32-bit murmur2 of `data`, unsigned."""
    length = len(data)
    h = 0x9747B28C ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little")
        k = (k * _M) & _MASK
        k ^= k >> 24
        h = (h * _M) & _MASK
        h ^= (k * _M) & _MASK
    rest = data[whole:]
    if rest:
        h ^= int.from_bytes(rest, "little")
        h = (h * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    h ^= h >> 15
    return h


@lru_cache(maxsize=16_384)
def partition_of(namespace: str, partitions: int) -> int:
    """Return the partition of `namespace` in a log of `partitions` partitions."""
    return (murmur2(canonical_namespace(namespace).encode()) & 0x7FFFFFFF) % partitions
