from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Sparse(_message.Message):
    __slots__ = ("indices", "values")
    INDICES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    indices: _containers.RepeatedScalarFieldContainer[int]
    values: bytes
    def __init__(self, indices: _Optional[_Iterable[int]] = ..., values: _Optional[bytes] = ...) -> None: ...

class Upsert(_message.Message):
    __slots__ = ("id", "values", "sparse", "metadata")
    ID_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    id: str
    values: bytes
    sparse: Sparse
    metadata: bytes
    def __init__(self, id: _Optional[str] = ..., values: _Optional[bytes] = ..., sparse: _Optional[_Union[Sparse, _Mapping]] = ..., metadata: _Optional[bytes] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("id", "values", "sparse", "set_metadata")
    ID_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    SET_METADATA_FIELD_NUMBER: _ClassVar[int]
    id: str
    values: bytes
    sparse: Sparse
    set_metadata: bytes
    def __init__(self, id: _Optional[str] = ..., values: _Optional[bytes] = ..., sparse: _Optional[_Union[Sparse, _Mapping]] = ..., set_metadata: _Optional[bytes] = ...) -> None: ...

class UpdateWhere(_message.Message):
    __slots__ = ("filter", "set_metadata")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    SET_METADATA_FIELD_NUMBER: _ClassVar[int]
    filter: bytes
    set_metadata: bytes
    def __init__(self, filter: _Optional[bytes] = ..., set_metadata: _Optional[bytes] = ...) -> None: ...

class Delete(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class DeleteWhere(_message.Message):
    __slots__ = ("filter",)
    FILTER_FIELD_NUMBER: _ClassVar[int]
    filter: bytes
    def __init__(self, filter: _Optional[bytes] = ...) -> None: ...

class DeleteNamespace(_message.Message):
    __slots__ = ("keep",)
    KEEP_FIELD_NUMBER: _ClassVar[int]
    keep: bool
    def __init__(self, keep: _Optional[bool] = ...) -> None: ...

class CreateNamespace(_message.Message):
    __slots__ = ("schema",)
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    schema: bytes
    def __init__(self, schema: _Optional[bytes] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("upsert", "update", "update_where", "delete", "delete_where", "delete_namespace", "create_namespace")
    UPSERT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_WHERE_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    DELETE_WHERE_FIELD_NUMBER: _ClassVar[int]
    DELETE_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    CREATE_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    upsert: Upsert
    update: Update
    update_where: UpdateWhere
    delete: Delete
    delete_where: DeleteWhere
    delete_namespace: DeleteNamespace
    create_namespace: CreateNamespace
    def __init__(self, upsert: _Optional[_Union[Upsert, _Mapping]] = ..., update: _Optional[_Union[Update, _Mapping]] = ..., update_where: _Optional[_Union[UpdateWhere, _Mapping]] = ..., delete: _Optional[_Union[Delete, _Mapping]] = ..., delete_where: _Optional[_Union[DeleteWhere, _Mapping]] = ..., delete_namespace: _Optional[_Union[DeleteNamespace, _Mapping]] = ..., create_namespace: _Optional[_Union[CreateNamespace, _Mapping]] = ...) -> None: ...

class IndexSpec(_message.Message):
    __slots__ = ("name", "log_id", "partitions", "dimension", "metric", "vector_type", "settings", "recall_target", "write_wait_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    VECTOR_TYPE_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    RECALL_TARGET_FIELD_NUMBER: _ClassVar[int]
    WRITE_WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    log_id: str
    partitions: int
    dimension: int
    metric: str
    vector_type: str
    settings: bytes
    recall_target: float
    write_wait_ms: int
    def __init__(self, name: _Optional[str] = ..., log_id: _Optional[str] = ..., partitions: _Optional[int] = ..., dimension: _Optional[int] = ..., metric: _Optional[str] = ..., vector_type: _Optional[str] = ..., settings: _Optional[bytes] = ..., recall_target: _Optional[float] = ..., write_wait_ms: _Optional[int] = ...) -> None: ...

class CreateIndex(_message.Message):
    __slots__ = ("spec", "ports")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    spec: IndexSpec
    ports: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, spec: _Optional[_Union[IndexSpec, _Mapping]] = ..., ports: _Optional[_Iterable[int]] = ...) -> None: ...

class DeleteIndex(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ConfigureIndex(_message.Message):
    __slots__ = ("name", "recall_target", "deletion_protection", "tags", "write_wait_ms", "max_records", "max_bytes")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    RECALL_TARGET_FIELD_NUMBER: _ClassVar[int]
    DELETION_PROTECTION_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    WRITE_WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_RECORDS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    recall_target: float
    deletion_protection: str
    tags: _containers.ScalarMap[str, str]
    write_wait_ms: int
    max_records: int
    max_bytes: int
    def __init__(self, name: _Optional[str] = ..., recall_target: _Optional[float] = ..., deletion_protection: _Optional[str] = ..., tags: _Optional[_Mapping[str, str]] = ..., write_wait_ms: _Optional[int] = ..., max_records: _Optional[int] = ..., max_bytes: _Optional[int] = ...) -> None: ...

class ApiKey(_message.Message):
    __slots__ = ("id", "digest", "role", "indexes", "namespaces", "label", "created_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    INDEXES_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    digest: bytes
    role: str
    indexes: _containers.RepeatedScalarFieldContainer[str]
    namespaces: _containers.RepeatedScalarFieldContainer[str]
    label: str
    created_ms: int
    def __init__(self, id: _Optional[str] = ..., digest: _Optional[bytes] = ..., role: _Optional[str] = ..., indexes: _Optional[_Iterable[str]] = ..., namespaces: _Optional[_Iterable[str]] = ..., label: _Optional[str] = ..., created_ms: _Optional[int] = ...) -> None: ...

class CreateKey(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: ApiKey
    def __init__(self, key: _Optional[_Union[ApiKey, _Mapping]] = ...) -> None: ...

class RevokeKey(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class CreateBackup(_message.Message):
    __slots__ = ("backup_id", "index", "log_id", "name", "description", "next_offsets")
    BACKUP_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    backup_id: str
    index: str
    log_id: str
    name: str
    description: str
    next_offsets: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, backup_id: _Optional[str] = ..., index: _Optional[str] = ..., log_id: _Optional[str] = ..., name: _Optional[str] = ..., description: _Optional[str] = ..., next_offsets: _Optional[_Iterable[int]] = ...) -> None: ...

class PinBackup(_message.Message):
    __slots__ = ("backup_id", "partition", "version", "manifest_digest", "next_offset", "records", "namespaces", "size_bytes")
    BACKUP_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    backup_id: str
    partition: int
    version: int
    manifest_digest: bytes
    next_offset: int
    records: int
    namespaces: int
    size_bytes: int
    def __init__(self, backup_id: _Optional[str] = ..., partition: _Optional[int] = ..., version: _Optional[int] = ..., manifest_digest: _Optional[bytes] = ..., next_offset: _Optional[int] = ..., records: _Optional[int] = ..., namespaces: _Optional[int] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class DeleteBackup(_message.Message):
    __slots__ = ("backup_id",)
    BACKUP_ID_FIELD_NUMBER: _ClassVar[int]
    backup_id: str
    def __init__(self, backup_id: _Optional[str] = ...) -> None: ...

class RestoreBackup(_message.Message):
    __slots__ = ("job_id", "backup_id", "create")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    BACKUP_ID_FIELD_NUMBER: _ClassVar[int]
    CREATE_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    backup_id: str
    create: CreateIndex
    def __init__(self, job_id: _Optional[str] = ..., backup_id: _Optional[str] = ..., create: _Optional[_Union[CreateIndex, _Mapping]] = ...) -> None: ...

class AdvanceRestore(_message.Message):
    __slots__ = ("job_id", "partition", "namespace", "after", "records")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    partition: int
    namespace: str
    after: str
    records: int
    def __init__(self, job_id: _Optional[str] = ..., partition: _Optional[int] = ..., namespace: _Optional[str] = ..., after: _Optional[str] = ..., records: _Optional[int] = ...) -> None: ...

class FinishRestore(_message.Message):
    __slots__ = ("job_id", "reason")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    reason: str
    def __init__(self, job_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class StartImport(_message.Message):
    __slots__ = ("index_id", "id", "uri", "on_error", "integration_id", "created_ms", "runner")
    INDEX_ID_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    ON_ERROR_FIELD_NUMBER: _ClassVar[int]
    INTEGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    RUNNER_FIELD_NUMBER: _ClassVar[int]
    index_id: str
    id: str
    uri: str
    on_error: str
    integration_id: str
    created_ms: int
    runner: str
    def __init__(self, index_id: _Optional[str] = ..., id: _Optional[str] = ..., uri: _Optional[str] = ..., on_error: _Optional[str] = ..., integration_id: _Optional[str] = ..., created_ms: _Optional[int] = ..., runner: _Optional[str] = ...) -> None: ...

class ImportBadRow(_message.Message):
    __slots__ = ("file", "row", "reason")
    FILE_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    file: str
    row: int
    reason: str
    def __init__(self, file: _Optional[str] = ..., row: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class ImportProgress(_message.Message):
    __slots__ = ("is_writing", "file", "row", "share", "imported", "bad", "sample", "ends", "ignored_columns")
    IS_WRITING_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    IMPORTED_FIELD_NUMBER: _ClassVar[int]
    BAD_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    ENDS_FIELD_NUMBER: _ClassVar[int]
    IGNORED_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    is_writing: bool
    file: int
    row: int
    share: float
    imported: int
    bad: int
    sample: _containers.RepeatedCompositeFieldContainer[ImportBadRow]
    ends: _containers.RepeatedScalarFieldContainer[int]
    ignored_columns: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, is_writing: _Optional[bool] = ..., file: _Optional[int] = ..., row: _Optional[int] = ..., share: _Optional[float] = ..., imported: _Optional[int] = ..., bad: _Optional[int] = ..., sample: _Optional[_Iterable[_Union[ImportBadRow, _Mapping]]] = ..., ends: _Optional[_Iterable[int]] = ..., ignored_columns: _Optional[_Iterable[str]] = ...) -> None: ...

class ImportEnd(_message.Message):
    __slots__ = ("status", "error", "finished_ms")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FINISHED_MS_FIELD_NUMBER: _ClassVar[int]
    status: str
    error: str
    finished_ms: int
    def __init__(self, status: _Optional[str] = ..., error: _Optional[str] = ..., finished_ms: _Optional[int] = ...) -> None: ...

class ReportImport(_message.Message):
    __slots__ = ("index_id", "id", "runner", "term", "fingerprints", "progress", "end")
    INDEX_ID_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    RUNNER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINTS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    index_id: str
    id: str
    runner: str
    term: int
    fingerprints: bytes
    progress: ImportProgress
    end: ImportEnd
    def __init__(self, index_id: _Optional[str] = ..., id: _Optional[str] = ..., runner: _Optional[str] = ..., term: _Optional[int] = ..., fingerprints: _Optional[bytes] = ..., progress: _Optional[_Union[ImportProgress, _Mapping]] = ..., end: _Optional[_Union[ImportEnd, _Mapping]] = ...) -> None: ...

class CancelImport(_message.Message):
    __slots__ = ("index_id", "id", "finished_ms")
    INDEX_ID_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    FINISHED_MS_FIELD_NUMBER: _ClassVar[int]
    index_id: str
    id: str
    finished_ms: int
    def __init__(self, index_id: _Optional[str] = ..., id: _Optional[str] = ..., finished_ms: _Optional[int] = ...) -> None: ...

class CatalogEvent(_message.Message):
    __slots__ = ("create_index", "delete_index", "configure_index", "create_key", "revoke_key", "create_backup", "pin_backup", "delete_backup", "restore_backup", "advance_restore", "finish_restore", "start_import", "report_import", "cancel_import")
    CREATE_INDEX_FIELD_NUMBER: _ClassVar[int]
    DELETE_INDEX_FIELD_NUMBER: _ClassVar[int]
    CONFIGURE_INDEX_FIELD_NUMBER: _ClassVar[int]
    CREATE_KEY_FIELD_NUMBER: _ClassVar[int]
    REVOKE_KEY_FIELD_NUMBER: _ClassVar[int]
    CREATE_BACKUP_FIELD_NUMBER: _ClassVar[int]
    PIN_BACKUP_FIELD_NUMBER: _ClassVar[int]
    DELETE_BACKUP_FIELD_NUMBER: _ClassVar[int]
    RESTORE_BACKUP_FIELD_NUMBER: _ClassVar[int]
    ADVANCE_RESTORE_FIELD_NUMBER: _ClassVar[int]
    FINISH_RESTORE_FIELD_NUMBER: _ClassVar[int]
    START_IMPORT_FIELD_NUMBER: _ClassVar[int]
    REPORT_IMPORT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_IMPORT_FIELD_NUMBER: _ClassVar[int]
    create_index: CreateIndex
    delete_index: DeleteIndex
    configure_index: ConfigureIndex
    create_key: CreateKey
    revoke_key: RevokeKey
    create_backup: CreateBackup
    pin_backup: PinBackup
    delete_backup: DeleteBackup
    restore_backup: RestoreBackup
    advance_restore: AdvanceRestore
    finish_restore: FinishRestore
    start_import: StartImport
    report_import: ReportImport
    cancel_import: CancelImport
    def __init__(self, create_index: _Optional[_Union[CreateIndex, _Mapping]] = ..., delete_index: _Optional[_Union[DeleteIndex, _Mapping]] = ..., configure_index: _Optional[_Union[ConfigureIndex, _Mapping]] = ..., create_key: _Optional[_Union[CreateKey, _Mapping]] = ..., revoke_key: _Optional[_Union[RevokeKey, _Mapping]] = ..., create_backup: _Optional[_Union[CreateBackup, _Mapping]] = ..., pin_backup: _Optional[_Union[PinBackup, _Mapping]] = ..., delete_backup: _Optional[_Union[DeleteBackup, _Mapping]] = ..., restore_backup: _Optional[_Union[RestoreBackup, _Mapping]] = ..., advance_restore: _Optional[_Union[AdvanceRestore, _Mapping]] = ..., finish_restore: _Optional[_Union[FinishRestore, _Mapping]] = ..., start_import: _Optional[_Union[StartImport, _Mapping]] = ..., report_import: _Optional[_Union[ReportImport, _Mapping]] = ..., cancel_import: _Optional[_Union[CancelImport, _Mapping]] = ...) -> None: ...
