"""Both generations of index bodies: what a create means, and one description that every client understands.

API 2026-07 describes an index by `schema` and `deployment`; every version before by `dimension`, `metric` and `spec`.
An answer carries both.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from typing import Any

import orjson

from query_api.rest.models import ConfigureIndexBody, CreateIndexBody, DeploymentBody, parsed
from schemas.catalog_events import ConfigureIndexEvent, check_bounds, check_spec
from schemas.errors import InvalidRequest, UnprocessableBody
from schemas.indexes import IndexSpec, Metric, VectorType
from schemas.limits import TAG_KEY_BYTES_MAX, TAG_VALUE_BYTES_MAX, TAGS_MAX

__all__ = ["describe_index", "event_of_configure", "spec_of_create"]

# The field names that both newest clients use for "an index of vectors", as opposed to documents.
DENSE_FIELD = "_values"
SPARSE_FIELD = "_sparse_values"
_TAG_KEY = re.compile(rf"[A-Za-z0-9_-]{{1,{TAG_KEY_BYTES_MAX}}}")
_TAG_VALUE = re.compile(rf"[ -~]{{0,{TAG_VALUE_BYTES_MAX}}}")
_CLOUD, _REGION = "aws", "us-east-1"
_DEPLOYMENTS = ("managed", "pod", "byoc")
_READ_CAPACITY = {"mode": "OnDemand", "status": {"state": "Ready"}}


def spec_of_create(document: dict[str, object], *, partitions: int) -> IndexSpec:
    """Return the index that a create asks for, with a new log.

    Raises `UnprocessableBody` for a body of the wrong shape, `InvalidRequest` for an index that can't be.
    """
    body = parsed(CreateIndexBody, document, is_control=True)
    settings: dict[str, Any] = {
        "tags": _tags(body.tags),
        "deletion_protection": body.deletion_protection or "disabled",
    }
    check_bounds(body.max_records, body.max_bytes)
    bounds = {"max_records": body.max_records, "max_bytes": body.max_bytes}
    settings |= {name: bound for name, bound in bounds.items() if bound is not None}
    if body.index_schema is not None or body.deployment is not None:
        dimension, metric, vector_type = _from_schema(body)
        settings["spec"] = _spec_of_deployment(body.deployment)
    else:
        dimension, metric, vector_type = _from_dimension(body)
        settings["spec"] = _spec(body, vector_type)
    spec = IndexSpec(
        name=body.name,
        # 22 characters of the URL-safe alphabet: 128 random bits.
        log_id=secrets.token_urlsafe(16),
        partitions=partitions,
        dimension=dimension,
        metric=_metric(metric),
        vector_type=vector_type,
        settings=orjson.dumps(settings),
    )
    if body.recall_target is not None:
        spec = replace(spec, recall_target=body.recall_target)
    spec = replace(spec, write_wait_ms=body.write_wait_ms)
    check_spec(spec)
    return spec


def describe_index(spec: IndexSpec, *, host: str, is_ready: bool) -> dict[str, object]:
    """Return the index in the words of every API version at once."""
    settings = orjson.loads(spec.settings)
    is_sparse = spec.vector_type is VectorType.SPARSE
    fields: dict[str, object]
    if is_sparse:
        fields = {SPARSE_FIELD: {"type": "sparse_vector", "metric": spec.metric.value}}
    else:
        fields = {DENSE_FIELD: {"type": "dense_vector", "dimension": spec.dimension, "metric": spec.metric.value}}
    kept = settings.get("spec") or {"serverless": {"cloud": _CLOUD, "region": _REGION}}
    described: dict[str, object] = {
        "name": spec.name,
        "host": host,
        "status": {"ready": is_ready, "state": "Ready" if is_ready else "Initializing"},
        "metric": spec.metric.value,
        "vector_type": spec.vector_type.value,
        "spec": _shown_spec(kept),
        "schema": {"fields": fields},
        "deployment": _deployment(kept),
        "deletion_protection": settings.get("deletion_protection", "disabled"),
        "tags": settings.get("tags") or None,
        "read_capacity": _READ_CAPACITY,
        "recall_target": spec.recall_target,
        "write_wait_ms": spec.write_wait_ms,
        "max_records": settings.get("max_records"),
        "max_bytes": settings.get("max_bytes"),
    }
    if not is_sparse:
        described["dimension"] = spec.dimension
    return described


def event_of_configure(spec: IndexSpec, document: dict[str, object], *, is_strict: bool) -> ConfigureIndexEvent:
    """Return what a configure asks for; `is_strict` refuses fields that are not known, as API 2026-07 does.

    Raises `UnprocessableBody` for a body of the wrong shape, `InvalidRequest` for what cannot be changed.
    """
    body = parsed(ConfigureIndexBody, document, is_control=True)
    unknown = sorted(document.keys() - ConfigureIndexBody.model_fields.keys() - {"schema"})
    if is_strict and unknown:
        raise InvalidRequest(f"Unknown field '{unknown[0][:80]}'")
    if body.index_schema is not None or body.embed is not None:
        raise InvalidRequest("The schema of an index is fixed when it is created: leave out 'schema' and 'embed'")
    kept = orjson.loads(spec.settings).get("spec") or {}
    for field, wanted in (("spec", body.spec), ("deployment", body.deployment)):
        shown = _shown_spec(kept) if field == "spec" else _deployment(kept)
        if wanted is not None and not _is_part(wanted, shown):
            raise InvalidRequest(
                f"Field '{field}' cannot be changed: there are no pods or regions here to move or scale. "
                "Leave it out, or make another index"
            )
    if body.read_capacity is not None and body.read_capacity.get("mode") != _READ_CAPACITY["mode"]:
        raise InvalidRequest("Read capacity can only be OnDemand: an index here has what its machine has")
    _check_tags(body.tags or {})
    changes = (body.recall_target, body.deletion_protection)
    check_bounds(body.max_records, body.max_bytes)
    bounds = (body.max_records, body.max_bytes)
    return ConfigureIndexEvent(spec.name, *changes, body.tags or {}, body.write_wait_ms, *bounds)


def _is_part(wanted: object, kept: object) -> bool:
    """Say whether a client that sends `wanted` asks for nothing but what is `kept`; null asks for nothing."""
    if isinstance(wanted, dict) and isinstance(kept, dict):
        return all(value is None or _is_part(value, kept.get(key)) for key, value in wanted.items())
    return wanted == kept


def _from_schema(body: CreateIndexBody) -> tuple[int, str, VectorType]:
    fields = body.index_schema.fields if body.index_schema is not None else {}
    foreign = sorted(fields.keys() - {DENSE_FIELD, SPARSE_FIELD})
    if foreign:
        raise InvalidRequest(
            f"Schema field '{foreign[0]}' makes this an index of documents, which is not supported yet; an index of "
            f"vectors has only '{DENSE_FIELD}' or '{SPARSE_FIELD}', as create_index(dimension=, metric=) sends them."
        )
    dense = fields.get(DENSE_FIELD)
    if dense is not None:
        if dense.type != "dense_vector":
            raise InvalidRequest(f"Schema field '{DENSE_FIELD}' must have the type dense_vector, got '{dense.type}'")
        if dense.dimension is None:
            raise InvalidRequest(f"Schema field '{DENSE_FIELD}' needs a dimension")
        return dense.dimension, dense.metric or Metric.COSINE.value, VectorType.DENSE
    sparse = fields.get(SPARSE_FIELD)
    if sparse is None:
        raise UnprocessableBody("Missing field 'schema.fields': an index needs a vector field")
    if sparse.type != "sparse_vector":
        raise InvalidRequest(f"Schema field '{SPARSE_FIELD}' must have the type sparse_vector, got '{sparse.type}'")
    if sparse.dimension is not None:
        raise InvalidRequest("dimension should not be specified for sparse indexes")
    return 0, sparse.metric or Metric.DOTPRODUCT.value, VectorType.SPARSE


def _from_dimension(body: CreateIndexBody) -> tuple[int, str, VectorType]:
    try:
        vector_type = VectorType(body.vector_type or VectorType.DENSE.value)
    except ValueError as error:
        raise InvalidRequest(f"Vector type must be dense or sparse, got '{body.vector_type}'") from error
    if vector_type is VectorType.SPARSE:
        if body.dimension:
            raise InvalidRequest("dimension should not be specified for sparse indexes")
        return 0, body.metric or Metric.DOTPRODUCT.value, vector_type
    if body.dimension is None:
        raise UnprocessableBody("Missing field 'dimension': a dense index needs one", field="dimension")
    return body.dimension, body.metric or Metric.COSINE.value, vector_type


def _metric(name: str) -> Metric:
    try:
        return Metric(name)
    except ValueError as error:
        known = ", ".join(metric.value for metric in Metric)
        raise InvalidRequest(f"Metric must be one of {known}, got '{name}'") from error


def _spec(body: CreateIndexBody, vector_type: VectorType) -> dict[str, Any]:
    """Return the `spec` of an older body, checked; it is kept and given back, and decides nothing here."""
    spec = body.spec
    if spec is None:
        return {"serverless": {"cloud": _CLOUD, "region": _REGION}}
    kinds = [kind for kind in ("serverless", "pod", "byoc") if spec.get(kind) is not None]
    if len(kinds) != 1 or not isinstance(spec[kinds[0]], dict):
        raise UnprocessableBody("Field 'spec' must have one of 'serverless', 'pod' and 'byoc'", field="spec")
    kind = kinds[0]
    if kind == "pod" and vector_type is VectorType.SPARSE:
        raise InvalidRequest("Sparse vector type is not supported for pod indexes")
    needed = ("cloud", "region") if kind == "serverless" else ("environment",)
    for field in needed:
        if not isinstance(spec[kind].get(field), str):
            raise UnprocessableBody(f"Field 'spec.{kind}.{field}' must be a string", field=f"spec.{kind}.{field}")
    return {kind: spec[kind]}


def _spec_of_deployment(deployment: DeploymentBody | None) -> dict[str, Any]:
    if deployment is None:
        return {"serverless": {"cloud": _CLOUD, "region": _REGION}}
    if deployment.deployment_type not in _DEPLOYMENTS:
        raise UnprocessableBody(
            f"Deployment type must be one of {', '.join(_DEPLOYMENTS)}, got '{deployment.deployment_type}'",
            field="deployment.deployment_type",
        )
    if deployment.deployment_type == "pod":
        raise InvalidRequest("Pod indexes cannot be created with this API version; use a managed deployment")
    if deployment.deployment_type == "byoc":
        if deployment.environment is None:
            raise UnprocessableBody("Missing field 'deployment.environment'", field="deployment.environment")
        return {"byoc": {"environment": deployment.environment}}
    for field, value in (("cloud", deployment.cloud), ("region", deployment.region)):
        if value is None:
            raise UnprocessableBody(f"Missing field 'deployment.{field}'", field=f"deployment.{field}")
    return {"serverless": {"cloud": deployment.cloud, "region": deployment.region}}


def _shown_spec(spec: dict[str, Any]) -> dict[str, Any]:
    serverless = spec.get("serverless")
    if serverless is None:
        return spec
    return {"serverless": {**serverless, "read_capacity": _READ_CAPACITY}}


def _deployment(spec: dict[str, Any]) -> dict[str, object]:
    if "pod" in spec:
        pod = spec["pod"]
        return {
            "deployment_type": "pod",
            "environment": pod["environment"],
            "pod_type": pod.get("pod_type") or "p1.x1",
            "replicas": pod.get("replicas") or 1,
            "shards": pod.get("shards") or 1,
        }
    if "byoc" in spec:
        return {"deployment_type": "byoc", "environment": spec["byoc"]["environment"]}
    serverless = spec["serverless"]
    return {"deployment_type": "managed", "cloud": serverless["cloud"], "region": serverless["region"]}


def _tags(tags: dict[str, str] | None) -> dict[str, str]:
    kept = {key: value for key, value in (tags or {}).items() if value}
    if len(kept) > TAGS_MAX:
        raise InvalidRequest(f"An index can have {TAGS_MAX} tags, got {len(kept)}", limit=TAGS_MAX)
    _check_tags(kept)
    return kept


def _check_tags(tags: dict[str, str]) -> None:
    for key, value in tags.items():
        if not _TAG_KEY.fullmatch(key):
            raise InvalidRequest(
                f"Tag key must be 1 to {TAG_KEY_BYTES_MAX} of A-Z, a-z, 0-9, '_' and '-': {key[:90]!r}"
            )
        if not _TAG_VALUE.fullmatch(value):
            raise InvalidRequest(f"Tag '{key}' must be up to {TAG_VALUE_BYTES_MAX} printable ASCII characters")
