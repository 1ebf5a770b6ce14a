import json

from schemas.partitions import partition_of
from tests.golden.datagen import NAMESPACES, PARTITIONS_FILE


def test_no_namespace_has_moved_to_another_partition():
    """Placement is a wire contract: a namespace that moved would be read from the wrong partition."""
    golden = json.loads(PARTITIONS_FILE.read_text())
    assert set(NAMESPACES) < set(golden)
    for namespace, partitions in golden.items():
        for count, partition in partitions.items():
            assert partition_of(namespace, int(count)) == partition
