import random

from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as kafka_murmur2

from schemas.partitions import canonical_namespace, murmur2, partition_of


def test_partition_equals_that_of_kafkas_default_partitioner():
    """Any producer that keys by namespace lands in the partition that this one reads: 10,000 keys of every length."""
    source = random.Random(20261101)
    partitioner = DefaultPartitioner()
    for number in range(10_000):
        length = number % 130 if number % 10 else source.randint(1, 512)
        namespace = "".join(chr(source.randint(1, 127)) for _ in range(length))
        key = canonical_namespace(namespace).encode()
        partitions = source.choice([1, 2, 3, 4, 7, 12, 64, 1_000])
        assert partition_of(namespace, partitions) == partitioner(key, list(range(partitions)), [])


def test_hash_equals_kafkas_for_any_bytes():
    """The hash is that of the bytes, of any length and value."""
    source = random.Random(20261102)
    for length in range(1_000):
        data = source.randbytes(length)
        assert murmur2(data) == kafka_murmur2(data) & 0xFFFFFFFF


def test_default_namespace_has_one_partition_whatever_it_is_called():
    """Absent, empty and __default__ are one namespace."""
    assert canonical_namespace(None) == canonical_namespace("") == canonical_namespace("__default__") == "__default__"
    for partitions in range(1, 50):
        assert partition_of("", partitions) == partition_of("__default__", partitions)
