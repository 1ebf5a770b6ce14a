"""Makes the golden bytes: `python -m tests.golden.datagen`. A file that exists is never written again.

The bytes of a released format never change; a new format gets a folder of its own, and the old ones stay readable.
"""

import json
from pathlib import Path

import numpy as np

from schemas.backup_events import (
    AdvanceRestoreEvent,
    CreateBackupEvent,
    DeleteBackupEvent,
    FinishRestoreEvent,
    PinBackupEvent,
    RestoreBackupEvent,
)
from schemas.backups import Cursor, Pin
from schemas.catalog_events import (
    ConfigureIndexEvent,
    CreateIndexEvent,
    CreateKeyEvent,
    DeleteIndexEvent,
    RevokeKeyEvent,
    encode_catalog,
)
from schemas.events import encode
from schemas.import_events import (
    BadRow,
    CancelImportEvent,
    ImportEnd,
    ImportMark,
    ImportProgress,
    ReportImportEvent,
    StartImportEvent,
)
from schemas.indexes import IndexSpec, Metric, VectorType
from schemas.keys import ApiKey, Role
from schemas.operations import CreateNamespace, Delete, DeleteNamespace, DeleteWhere, Update, UpdateWhere, Upsert
from schemas.partitions import partition_of
from schemas.records import dense_bytes, make_sparse

HERE = Path(__file__).parent
EVENTS_FOLDER = HERE / "v1" / "events"
JSON_FOLDER = HERE / "v1" / "json_events"
CATALOG_FOLDER = HERE / "v1" / "catalog_events"
PARTITIONS_FILE = HERE / "v1" / "partitions.json"

DENSE = dense_bytes([1, -2.5, 0.1])
SPARSE = make_sparse([0, 7, 2**32 - 1], [0.5, -1, 3e-39])
FILTER = (
    b'{"$and":[{"$or":[{"genre":{"$in":["drama","com\xc3\xa9die"]}},{"seen":{"$ne":true}}]},'
    b'{"year":{"$gte":1990.0}},{"year":{"$lt":2000.5}},{"tags":{"$nin":["x",1.0,false]}},{"note":{"$exists":false}}]}'
)
METADATA = '{"genre":"comédie","year":1994,"score":8.5,"seen":false,"tags":["a","b"],"":"empty name"}'.encode()

EVENTS = {
    "upsert": Upsert("movie-1", DENSE, SPARSE, METADATA),
    "upsert_dense_only": Upsert("m", DENSE, None, b""),
    "upsert_sparse_only": Upsert("m", b"", SPARSE, b""),
    "update": Update("movie-1", DENSE, SPARSE, METADATA),
    "update_nothing": Update("movie-1", None, None, None),
    "update_metadata_only": Update("movie-1", None, None, b'{"year":1995.5}'),
    "update_where": UpdateWhere(FILTER, b'{"seen":true}'),
    "delete": Delete("movie-1"),
    "delete_where": DeleteWhere(FILTER),
    "delete_namespace_keep": DeleteNamespace(keep=True),
    "delete_namespace_gone": DeleteNamespace(keep=False),
    "create_namespace": CreateNamespace(b""),
    "create_namespace_schema": CreateNamespace(b'{"fields":{"genre":{"filterable":true}}}'),
}

SPARSE_JSON = {"indices": [7, 0, 2**32 - 1], "values": [-1, 0.5, 3e-39]}
JSON_EVENTS = {
    "upsert": {
        "upsert": {
            "id": "movie-1",
            "values": [1, -2.5, 0.1],
            "sparseValues": SPARSE_JSON,
            "metadata": json.loads(METADATA) | {"dropped": None},
        }
    },
    "upsert_dense_only": {"upsert": {"id": "m", "values": [1, -2.5, 0.1]}},
    "upsert_sparse_only": {"upsert": {"id": "m", "sparseValues": SPARSE_JSON}},
    "update": {
        "update": {
            "id": "movie-1",
            "values": [1, -2.5, 0.1],
            "sparseValues": SPARSE_JSON,
            "setMetadata": json.loads(METADATA),
        }
    },
    "update_nothing": {"update": {"id": "movie-1"}},
    "update_metadata_only": {"update": {"id": "movie-1", "setMetadata": {"year": 1995.5}}},
    "update_where": {"updateWhere": {"filter": json.loads(FILTER), "setMetadata": {"seen": True}}},
    "delete": {"delete": {"id": "movie-1"}},
    "delete_where": {"deleteWhere": {"filter": json.loads(FILTER)}},
    "delete_namespace_keep": {"deleteNamespace": {"keep": True}},
    "delete_namespace_gone": {"deleteNamespace": {"keep": False}},
    "create_namespace": {"createNamespace": {}},
    "create_namespace_schema": {"createNamespace": {"schema": {"fields": {"genre": {"filterable": True}}}}},
}

BACKUP, JOB = "0123456789abcdef" * 2, "fedcba9876543210" * 2
CATALOG_EVENTS = {
    "create_index": CreateIndexEvent(
        IndexSpec(
            "movies",
            "Abcdefghij_0123456789-",
            4,
            384,
            Metric.COSINE,
            settings=b'{"tags":{"team":"search"},"deletion_protection":"enabled"}',
        ),
        (5081, 5082),
    ),
    "create_index_sparse": CreateIndexEvent(
        IndexSpec("words", "-" * 22, 1, 0, Metric.DOTPRODUCT, VectorType.SPARSE), ()
    ),
    "create_index_recall_target": CreateIndexEvent(
        IndexSpec("movies", "Abcdefghij_0123456789-", 4, 384, Metric.COSINE, recall_target=0.98), (5081,)
    ),
    "delete_index": DeleteIndexEvent("movies"),
    "configure_index": ConfigureIndexEvent("movies", 0.9, "disabled", {"team": "", "stage": "live"}),
    "configure_index_tags": ConfigureIndexEvent("movies", tags={"team": "ads"}),
    "create_backup": CreateBackupEvent(BACKUP, "movies", "Abcdefghij_0123456789-", "nightly", "été\n2", (7, 0)),
    "create_backup_unnamed": CreateBackupEvent(BACKUP, "movies", "Abcdefghij_0123456789-", "", "", (1,)),
    "pin_backup": PinBackupEvent(BACKUP, Pin(1, 2**40, bytes(range(32)), 2**50, 12, 3, 4_096)),
    "delete_backup": DeleteBackupEvent(BACKUP),
    "restore_backup": RestoreBackupEvent(
        JOB,
        BACKUP,
        CreateIndexEvent(IndexSpec("again", "-" * 22, 2, 384, Metric.COSINE, recall_target=0.9), (5083,)),
    ),
    "advance_restore": AdvanceRestoreEvent(JOB, Cursor(1, "tenant", "movie-1", 9)),
    "advance_restore_begun": AdvanceRestoreEvent(JOB, Cursor(0, "__default__", "", 0)),
    "finish_restore": FinishRestoreEvent(JOB),
    "finish_restore_failed": FinishRestoreEvent(JOB, "An object is gone."),
    "start_import": StartImportEvent(
        "movies.Abcdefghij_0123456789-", "0f1e", "s3://bucket/é", "continue", "storage-1", 1_764_000_000_123, "runner-1"
    ),
    "report_import": ReportImportEvent(
        "movies.Abcdefghij_0123456789-",
        "0f1e",
        "runner-1",
        2,
        ImportProgress(
            is_writing=True,
            mark=ImportMark(3, 70_000),
            share=0.375,
            imported=250_000,
            bad=1,
            sample=(BadRow("one/a.parquet", 17, "has no id"),),
            ends=(5, 0, 2**40),
            ignored_columns=("text",),
        ),
        b"12345678abcdefgh",
    ),
    "report_import_end": ReportImportEvent(
        "movies.Abcdefghij_0123456789-",
        "0f1e",
        "runner-1",
        2,
        end=ImportEnd("Failed", "File one/a.parquet has changed.", 1_764_000_001_123),
    ),
    "cancel_import": CancelImportEvent("movies.Abcdefghij_0123456789-", "0f1e", 1_764_000_001_123),
    "configure_index_bounds": ConfigureIndexEvent("movies", max_records=1_000_000, max_bytes=0),
    "create_key": CreateKeyEvent(
        ApiKey(
            "0123456789ab",
            bytes(range(32)),
            Role.WRITE,
            ("movies",),
            ("__default__", "a"),
            "naïve job",
            1_700_000_000_000,
        )
    ),
    "create_key_admin": CreateKeyEvent(ApiKey("ba9876543210", bytes(range(32, 64)), Role.ADMIN)),
    "revoke_key": RevokeKeyEvent("0123456789ab"),
}

NAMESPACES = ["", "__default__", "a", "ab", "abc", "abcd", "tenant-42", "x" * 511, "x" * 512, "\x01", "\x7f", "a b"]
PARTITION_COUNTS = [1, 2, 3, 4, 16, 1000]


def partitions():
    """Return namespace -> partition count -> partition; also of random names, so that every length is there."""
    source = np.random.default_rng(1)
    names = NAMESPACES + [
        "".join(map(chr, source.integers(33, 127, size=int(length)))) for length in source.integers(1, 60, size=200)
    ]
    return {name: {str(count): partition_of(name, count) for count in PARTITION_COUNTS} for name in names}


def write(path, content):
    """Write a file that does not exist yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(content)
        print("wrote", path.relative_to(HERE))


def main():
    """Write what is missing."""
    for name, event in EVENTS.items():
        write(EVENTS_FOLDER / f"{name}.bin", encode(event))
    for name, value in JSON_EVENTS.items():
        write(JSON_FOLDER / f"{name}.json", json.dumps(value, indent=1).encode() + b"\n")
    for name, event in CATALOG_EVENTS.items():
        write(CATALOG_FOLDER / f"{name}.bin", encode_catalog(event))
    write(PARTITIONS_FILE, json.dumps(partitions(), indent=0).encode() + b"\n")


if __name__ == "__main__":
    main()
