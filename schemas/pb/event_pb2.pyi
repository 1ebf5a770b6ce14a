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

class CatalogEvent(_message.Message):
    __slots__ = ("create_index", "delete_index", "configure_index", "create_key", "revoke_key")
    CREATE_INDEX_FIELD_NUMBER: _ClassVar[int]
    DELETE_INDEX_FIELD_NUMBER: _ClassVar[int]
    CONFIGURE_INDEX_FIELD_NUMBER: _ClassVar[int]
    CREATE_KEY_FIELD_NUMBER: _ClassVar[int]
    REVOKE_KEY_FIELD_NUMBER: _ClassVar[int]
    create_index: CreateIndex
    delete_index: DeleteIndex
    configure_index: ConfigureIndex
    create_key: CreateKey
    revoke_key: RevokeKey
    def __init__(self, create_index: _Optional[_Union[CreateIndex, _Mapping]] = ..., delete_index: _Optional[_Union[DeleteIndex, _Mapping]] = ..., configure_index: _Optional[_Union[ConfigureIndex, _Mapping]] = ..., create_key: _Optional[_Union[CreateKey, _Mapping]] = ..., revoke_key: _Optional[_Union[RevokeKey, _Mapping]] = ...) -> None: ...
