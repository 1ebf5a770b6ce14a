"""Every bound of the wire surface, with unit and reason. Checked in `producer.admission` and `query_api`."""

from __future__ import annotations

__all__ = [
    "APPEND_BYTES_MAX",
    "BACKUP_DESCRIPTION_BYTES_MAX",
    "BACKUP_NAME_BYTES_MAX",
    "BATCH_RECORDS_MAX",
    "BODY_BYTES_MAX",
    "BODY_WITHOUT_RECORDS_BYTES_MAX",
    "CANDIDATES_MAX",
    "DIMENSION_MAX",
    "FETCH_IDS_MAX",
    "FETCH_MATCHING_DEFAULT",
    "FETCH_MATCHING_MAX",
    "FILTER_DEPTH_MAX",
    "FILTER_IN_MAX",
    "FILTER_NODES_MAX",
    "IDEMPOTENCY_EVENTS",
    "IDEMPOTENCY_KEY_BYTES_MAX",
    "ID_BYTES_MAX",
    "IMPORT_FILES_MAX",
    "IMPORT_FILE_BYTES_MAX",
    "IMPORT_INTEGRATION_ID_CHARACTERS_MAX",
    "IMPORT_NAMESPACES_MAX",
    "IMPORT_URI_CHARACTERS_MAX",
    "INDEX_BOUND_MAX",
    "INDEX_NAME_BYTES_MAX",
    "KEY_LABEL_LENGTH_MAX",
    "KEY_SCOPE_NAMES_MAX",
    "LIST_LIMIT_MAX",
    "METADATA_BYTES_MAX",
    "NAMESPACE_BYTES_MAX",
    "RECENT_DELTAS_MAX",
    "RECORD_FIELDS_MAX",
    "SCAN_FACTOR_MAX",
    "SCAN_FACTOR_MIN",
    "SPARSE_NONZEROS_MAX",
    "STALENESS_MS_MAX",
    "TAGS_MAX",
    "TAG_KEY_BYTES_MAX",
    "TAG_VALUE_BYTES_MAX",
    "TOP_K_MAX",
    "WAIT_MS_MAX",
]

# Records in one upsert, ids in one delete (Pinecone: 1,000).
BATCH_RECORDS_MAX = 1_000
# Ids in one fetch (Pinecone: 1,000).
FETCH_IDS_MAX = 1_000
# Records on one page of a fetch by metadata (Pinecone).
FETCH_MATCHING_MAX = 10_000
FETCH_MATCHING_DEFAULT = 100
# Bytes of one REST body; Pinecone takes 2 MB, a larger door costs nothing on one machine.
BODY_BYTES_MAX = 16 * 1024 * 1024
# Bytes of a REST body that brings no records: a filter at its limits fits; parsing more would only hold up others.
BODY_WITHOUT_RECORDS_BYTES_MAX = 4 * 1024 * 1024
# Encoded bytes of one append: above the largest admitted request, below a Kafka topic's message limit here.
APPEND_BYTES_MAX = 8 * 1024 * 1024
# Record id: 1 to 512 ASCII characters without NUL (Pinecone).
ID_BYTES_MAX = 512
# Namespace: up to 512 ASCII characters without NUL (Pinecone).
NAMESPACE_BYTES_MAX = 512
# Index name: 1 to 45 of [a-z0-9-] (Pinecone; also a DNS label).
INDEX_NAME_BYTES_MAX = 45
# Dense dimension (Pinecone).
DIMENSION_MAX = 20_000
# Non-zero values of a sparse vector (Pinecone).
SPARSE_NONZEROS_MAX = 2_048
# Metadata of one record as JSON (Pinecone: 40 KB).
METADATA_BYTES_MAX = 40 * 1024
# Matches of one query (Pinecone).
TOP_K_MAX = 10_000
# What a query may ask of dedicated read nodes (Pinecone); from top_k on for candidates.
SCAN_FACTOR_MIN, SCAN_FACTOR_MAX = 0.5, 4.0
CANDIDATES_MAX = 100_000
# Ids or namespaces on one page of a listing (Pinecone).
LIST_LIMIT_MAX = 100
# Nested levels of a filter: enough for any program, small enough for the stack.
FILTER_DEPTH_MAX = 32
# Operands of one $in or $nin.
FILTER_IN_MAX = 10_000
# Conditions of one filter.
FILTER_NODES_MAX = 10_000
# Fields that one search of records can name (Pinecone).
RECORD_FIELDS_MAX = 100
# Tags of an index (Pinecone).
TAGS_MAX = 20
TAG_KEY_BYTES_MAX = 80
TAG_VALUE_BYTES_MAX = 120
# What people call a backup, and what they say of it, in UTF-8: they lie in the catalog, which every process holds.
BACKUP_NAME_BYTES_MAX = 256
BACKUP_DESCRIPTION_BYTES_MAX = 1_024
# Publishes that a manifest lists itself; older ones are rolled up.
RECENT_DELTAS_MAX = 64
# Idempotency key: 1 to 64 printable ASCII characters, enough for a SHA-256 in hexadecimal.
IDEMPOTENCY_KEY_BYTES_MAX = 64
# Offsets of a partition over which a key is remembered.
IDEMPOTENCY_EVENTS = 100_000
# A bulk import: namespaces, files, bytes of one file, and the lengths of what a client says (Pinecone).
IMPORT_NAMESPACES_MAX = 10_000
IMPORT_FILES_MAX = 100_000
IMPORT_FILE_BYTES_MAX = 10 * 1024**3
IMPORT_URI_CHARACTERS_MAX = 1_500
IMPORT_INTEGRATION_ID_CHARACTERS_MAX = 1_000
# Longest wait that a reader or writer can ask for, milliseconds.
WAIT_MS_MAX = 60_000
# Largest staleness that a reader can allow, milliseconds: a day.
STALENESS_MS_MAX = 86_400_000
# Share of the true nearest rows that an index can ask for: below, a graph is not worth having; above, an exact scan is.
RECALL_TARGET_MIN = 0.5
RECALL_TARGET_MAX = 0.999
# Records or bytes that an index can be bounded to: the largest integer that every JSON reader keeps exactly.
INDEX_BOUND_MAX = 2**53 - 1
# Characters of what people call an API key.
KEY_LABEL_LENGTH_MAX = 120
# Indexes, and namespaces, that one API key can be scoped to.
KEY_SCOPE_NAMES_MAX = 100
