from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SegmentKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEGMENT_KIND_UNSPECIFIED: _ClassVar[SegmentKind]
    SEGMENT_KIND_FLAT: _ClassVar[SegmentKind]
    SEGMENT_KIND_GRAPH: _ClassVar[SegmentKind]
SEGMENT_KIND_UNSPECIFIED: SegmentKind
SEGMENT_KIND_FLAT: SegmentKind
SEGMENT_KIND_GRAPH: SegmentKind

class ObjectRef(_message.Message):
    __slots__ = ("name", "size_bytes", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    size_bytes: int
    sha256: bytes
    def __init__(self, name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class DeltaRef(_message.Message):
    __slots__ = ("segment_id", "object", "rows", "begin_offset", "next_offset")
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BEGIN_OFFSET_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    segment_id: int
    object: ObjectRef
    rows: int
    begin_offset: int
    next_offset: int
    def __init__(self, segment_id: _Optional[int] = ..., object: _Optional[_Union[ObjectRef, _Mapping]] = ..., rows: _Optional[int] = ..., begin_offset: _Optional[int] = ..., next_offset: _Optional[int] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("format", "index_id", "log_id", "lineage", "partition", "version", "epoch", "parent_version", "parent_digest", "next_offset", "applied_time_ms", "next_segment_id", "recent", "table", "created_ms", "dead_letters", "writer", "highest_offset", "self_digest")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    INDEX_ID_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PARENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    PARENT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    APPLIED_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    RECENT_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    WRITER_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    SELF_DIGEST_FIELD_NUMBER: _ClassVar[int]
    format: int
    index_id: str
    log_id: str
    lineage: int
    partition: int
    version: int
    epoch: int
    parent_version: int
    parent_digest: bytes
    next_offset: int
    applied_time_ms: int
    next_segment_id: int
    recent: _containers.RepeatedCompositeFieldContainer[DeltaRef]
    table: ObjectRef
    created_ms: int
    dead_letters: int
    writer: str
    highest_offset: int
    self_digest: bytes
    def __init__(self, format: _Optional[int] = ..., index_id: _Optional[str] = ..., log_id: _Optional[str] = ..., lineage: _Optional[int] = ..., partition: _Optional[int] = ..., version: _Optional[int] = ..., epoch: _Optional[int] = ..., parent_version: _Optional[int] = ..., parent_digest: _Optional[bytes] = ..., next_offset: _Optional[int] = ..., applied_time_ms: _Optional[int] = ..., next_segment_id: _Optional[int] = ..., recent: _Optional[_Iterable[_Union[DeltaRef, _Mapping]]] = ..., table: _Optional[_Union[ObjectRef, _Mapping]] = ..., created_ms: _Optional[int] = ..., dead_letters: _Optional[int] = ..., writer: _Optional[str] = ..., highest_offset: _Optional[int] = ..., self_digest: _Optional[bytes] = ...) -> None: ...

class SegmentEntry(_message.Message):
    __slots__ = ("segment_id", "kind", "records", "vectors", "graph", "rows", "changes", "offset_min", "offset_max", "namespace", "dead_rows", "graph_m", "graph_ef_construction", "graph_ef_search", "graph_seed", "graph_elements", "graph_recall")
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_MIN_FIELD_NUMBER: _ClassVar[int]
    OFFSET_MAX_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    DEAD_ROWS_FIELD_NUMBER: _ClassVar[int]
    GRAPH_M_FIELD_NUMBER: _ClassVar[int]
    GRAPH_EF_CONSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    GRAPH_EF_SEARCH_FIELD_NUMBER: _ClassVar[int]
    GRAPH_SEED_FIELD_NUMBER: _ClassVar[int]
    GRAPH_ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    GRAPH_RECALL_FIELD_NUMBER: _ClassVar[int]
    segment_id: int
    kind: SegmentKind
    records: ObjectRef
    vectors: ObjectRef
    graph: ObjectRef
    rows: int
    changes: _containers.RepeatedCompositeFieldContainer[ObjectRef]
    offset_min: int
    offset_max: int
    namespace: str
    dead_rows: int
    graph_m: int
    graph_ef_construction: int
    graph_ef_search: int
    graph_seed: int
    graph_elements: int
    graph_recall: float
    def __init__(self, segment_id: _Optional[int] = ..., kind: _Optional[_Union[SegmentKind, str]] = ..., records: _Optional[_Union[ObjectRef, _Mapping]] = ..., vectors: _Optional[_Union[ObjectRef, _Mapping]] = ..., graph: _Optional[_Union[ObjectRef, _Mapping]] = ..., rows: _Optional[int] = ..., changes: _Optional[_Iterable[_Union[ObjectRef, _Mapping]]] = ..., offset_min: _Optional[int] = ..., offset_max: _Optional[int] = ..., namespace: _Optional[str] = ..., dead_rows: _Optional[int] = ..., graph_m: _Optional[int] = ..., graph_ef_construction: _Optional[int] = ..., graph_ef_search: _Optional[int] = ..., graph_seed: _Optional[int] = ..., graph_elements: _Optional[int] = ..., graph_recall: _Optional[float] = ...) -> None: ...

class SegmentTable(_message.Message):
    __slots__ = ("format", "segments", "namespaces", "dead_letters", "outcomes", "idempotency")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_FIELD_NUMBER: _ClassVar[int]
    format: int
    segments: _containers.RepeatedCompositeFieldContainer[SegmentEntry]
    namespaces: _containers.RepeatedCompositeFieldContainer[ObjectRef]
    dead_letters: _containers.RepeatedCompositeFieldContainer[ObjectRef]
    outcomes: ObjectRef
    idempotency: _containers.RepeatedCompositeFieldContainer[ObjectRef]
    def __init__(self, format: _Optional[int] = ..., segments: _Optional[_Iterable[_Union[SegmentEntry, _Mapping]]] = ..., namespaces: _Optional[_Iterable[_Union[ObjectRef, _Mapping]]] = ..., dead_letters: _Optional[_Iterable[_Union[ObjectRef, _Mapping]]] = ..., outcomes: _Optional[_Union[ObjectRef, _Mapping]] = ..., idempotency: _Optional[_Iterable[_Union[ObjectRef, _Mapping]]] = ...) -> None: ...

class Patch(_message.Message):
    __slots__ = ("offset", "rows", "set_metadata")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SET_METADATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    rows: bytes
    set_metadata: bytes
    def __init__(self, offset: _Optional[int] = ..., rows: _Optional[bytes] = ..., set_metadata: _Optional[bytes] = ...) -> None: ...

class SegmentChanges(_message.Message):
    __slots__ = ("segment_id", "killed_rows", "killed_offsets", "patches")
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    KILLED_ROWS_FIELD_NUMBER: _ClassVar[int]
    KILLED_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    segment_id: int
    killed_rows: bytes
    killed_offsets: bytes
    patches: _containers.RepeatedCompositeFieldContainer[Patch]
    def __init__(self, segment_id: _Optional[int] = ..., killed_rows: _Optional[bytes] = ..., killed_offsets: _Optional[bytes] = ..., patches: _Optional[_Iterable[_Union[Patch, _Mapping]]] = ...) -> None: ...

class NamespaceRow(_message.Message):
    __slots__ = ("name", "exists", "floor", "offset", "schema")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXISTS_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    name: str
    exists: bool
    floor: int
    offset: int
    schema: bytes
    def __init__(self, name: _Optional[str] = ..., exists: _Optional[bool] = ..., floor: _Optional[int] = ..., offset: _Optional[int] = ..., schema: _Optional[bytes] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("offset", "code", "matched_records", "time_ms")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MATCHED_RECORDS_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    offset: int
    code: int
    matched_records: int
    time_ms: int
    def __init__(self, offset: _Optional[int] = ..., code: _Optional[int] = ..., matched_records: _Optional[int] = ..., time_ms: _Optional[int] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: bytes
    def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class DeadLetter(_message.Message):
    __slots__ = ("offset", "time_ms", "reason", "key", "value", "headers")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    offset: int
    time_ms: int
    reason: str
    key: bytes
    value: bytes
    headers: _containers.RepeatedCompositeFieldContainer[Header]
    def __init__(self, offset: _Optional[int] = ..., time_ms: _Optional[int] = ..., reason: _Optional[str] = ..., key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., headers: _Optional[_Iterable[_Union[Header, _Mapping]]] = ...) -> None: ...

class Changes(_message.Message):
    __slots__ = ("segments", "namespaces", "outcomes", "dead_letters", "idempotency")
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_FIELD_NUMBER: _ClassVar[int]
    segments: _containers.RepeatedCompositeFieldContainer[SegmentChanges]
    namespaces: _containers.RepeatedCompositeFieldContainer[NamespaceRow]
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    dead_letters: _containers.RepeatedCompositeFieldContainer[DeadLetter]
    idempotency: bytes
    def __init__(self, segments: _Optional[_Iterable[_Union[SegmentChanges, _Mapping]]] = ..., namespaces: _Optional[_Iterable[_Union[NamespaceRow, _Mapping]]] = ..., outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., dead_letters: _Optional[_Iterable[_Union[DeadLetter, _Mapping]]] = ..., idempotency: _Optional[bytes] = ...) -> None: ...

class Section(_message.Message):
    __slots__ = ("name", "offset", "size_bytes", "crc32")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    name: str
    offset: int
    size_bytes: int
    crc32: int
    def __init__(self, name: _Optional[str] = ..., offset: _Optional[int] = ..., size_bytes: _Optional[int] = ..., crc32: _Optional[int] = ...) -> None: ...

class ObjectFooter(_message.Message):
    __slots__ = ("format", "sections", "rows", "dimension")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    SECTIONS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    format: int
    sections: _containers.RepeatedCompositeFieldContainer[Section]
    rows: int
    dimension: int
    def __init__(self, format: _Optional[int] = ..., sections: _Optional[_Iterable[_Union[Section, _Mapping]]] = ..., rows: _Optional[int] = ..., dimension: _Optional[int] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("format", "version", "next_offset", "manifest_digest", "previous_version", "self_digest")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_VERSION_FIELD_NUMBER: _ClassVar[int]
    SELF_DIGEST_FIELD_NUMBER: _ClassVar[int]
    format: int
    version: int
    next_offset: int
    manifest_digest: bytes
    previous_version: int
    self_digest: bytes
    def __init__(self, format: _Optional[int] = ..., version: _Optional[int] = ..., next_offset: _Optional[int] = ..., manifest_digest: _Optional[bytes] = ..., previous_version: _Optional[int] = ..., self_digest: _Optional[bytes] = ...) -> None: ...
