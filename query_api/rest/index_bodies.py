"""Both generations of index bodies: what a create means, and one description that every client understands.

API 2026-07 describes an index by `schema` and `deployment`; every version before by `dimension`, `metric` and `spec`.
An answer carries both.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from typing import Any, NoReturn

import orjson

from query_api.rest.index_schemas import DeclaredIndex, declared_fields, older_schema, shown_fields
from query_api.rest.models import (
    ConfigureIndexBody,
    CreateForModelBody,
    CreateIndexBody,
    DeploymentBody,
    RestoreBackupBody,
    parsed,
)
from schemas.catalog_events import ConfigureIndexEvent, check_bounds, check_index_name, check_spec
from schemas.errors import InvalidRequest, NotFound, UnprocessableBody
from schemas.indexes import IndexSpec, Metric, VectorType
from schemas.limits import TAG_KEY_BYTES_MAX, TAG_VALUE_BYTES_MAX, TAGS_MAX

__all__ = [
    "cloud_of",
    "describe_index",
    "event_of_configure",
    "fields_of",
    "refuse_model",
    "spec_of_create",
    "spec_of_restore",
]

_TAG_KEY = re.compile(rf"[A-Za-z0-9_-]{{1,{TAG_KEY_BYTES_MAX}}}")
_TAG_VALUE = re.compile(rf"[ -~]{{0,{TAG_VALUE_BYTES_MAX}}}")
_CLOUD, _REGION = "aws", "us-east-1"
_DEFAULT_SPEC = {"serverless": {"cloud": _CLOUD, "region": _REGION}}
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
        declared = declared_fields(body.index_schema.fields if body.index_schema is not None else {})
        settings["spec"] = _spec_of_deployment(body.deployment)
        if declared.fields:
            settings["schema"] = {"fields": declared.fields}
    else:
        declared = _from_dimension(body)
        settings["spec"] = _spec(body, declared.vector_type)
        schema = older_schema(settings["spec"])
        if schema is not None:
            settings["schema"] = schema
    spec = IndexSpec(
        name=body.name,
        # 22 characters of the URL-safe alphabet: 128 random bits.
        log_id=secrets.token_urlsafe(16),
        partitions=partitions,
        dimension=declared.dimension,
        metric=_metric(declared.metric),
        vector_type=declared.vector_type,
        settings=orjson.dumps(settings),
    )
    if body.recall_target is not None:
        spec = replace(spec, recall_target=body.recall_target)
    spec = replace(spec, write_wait_ms=body.write_wait_ms)
    check_spec(spec)
    return spec


def spec_of_restore(source: IndexSpec, backup_id: str, document: dict[str, object]) -> IndexSpec:
    """Return the index that is to be made from a backup of `source`, with a new log.

    Raises `UnprocessableBody` for a body of the wrong shape, `InvalidRequest` for an index that can't be.
    """
    body = parsed(RestoreBackupBody, document, is_control=True)
    settings = orjson.loads(source.settings)
    if body.tags is not None:
        settings["tags"] = _tags(body.tags)
    settings |= {"deletion_protection": body.deletion_protection or "disabled", "source_backup_id": backup_id}
    spec = replace(source, name=body.name, log_id=secrets.token_urlsafe(16), settings=orjson.dumps(settings), port=0)
    check_spec(spec)
    return spec


def refuse_model(document: dict[str, object]) -> NoReturn:
    """Say what is wrong with an index that embeds texts by itself: at least that there is no model for it.

    Raises `UnprocessableBody`, `InvalidRequest`, else `NotFound`.
    """
    body = parsed(CreateForModelBody, document, is_control=True)
    check_index_name(body.name)
    if "text" not in body.embed.field_map:
        raise InvalidRequest("Missing required key 'text' in field 'embed.field_map'")
    raise NotFound(
        f"Model {body.embed.model[:80]} not found. No embedding model is configured here: create an index with a "
        "dimension, and send vectors that your own model has made.",
        model=body.embed.model[:80],
    )


def fields_of(spec: IndexSpec) -> dict[str, object]:
    """Return the fields of the index's schema as API 2026-07 describes them."""
    return shown_fields(spec, (orjson.loads(spec.settings).get("schema") or {}).get("fields") or {})


def cloud_of(spec: IndexSpec) -> tuple[str, str]:
    """Return cloud and region as the client named them; of pods and others the environment is the region."""
    deployment = _deployment(orjson.loads(spec.settings).get("spec") or _DEFAULT_SPEC)
    region = deployment.get("region") or deployment.get("environment") or _REGION
    return str(deployment.get("cloud") or _CLOUD), str(region)


def describe_index(spec: IndexSpec, *, host: str, is_ready: bool, has_failed: bool = False) -> dict[str, object]:
    """Return the index in the words of every API version at once; `has_failed` says that it never will be ready."""
    settings = orjson.loads(spec.settings)
    waits = "InitializationFailed" if has_failed else "Initializing"
    kept = settings.get("spec") or _DEFAULT_SPEC
    described: dict[str, object] = {
        "name": spec.name,
        "host": host,
        "status": {"ready": is_ready, "state": "Ready" if is_ready else waits},
        "metric": spec.metric.value,
        "vector_type": spec.vector_type.value,
        "spec": _shown_spec(kept),
        "schema": {"fields": fields_of(spec)},
        "deployment": _deployment(kept),
        "deletion_protection": settings.get("deletion_protection", "disabled"),
        "tags": settings.get("tags") or None,
        "read_capacity": _READ_CAPACITY,
        "recall_target": spec.recall_target,
        "write_wait_ms": spec.write_wait_ms,
        "max_records": settings.get("max_records"),
        "max_bytes": settings.get("max_bytes"),
    }
    if spec.vector_type is VectorType.DENSE:
        described["dimension"] = spec.dimension
    if "source_backup_id" in settings:
        described["source_backup_id"] = settings["source_backup_id"]
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


def _from_dimension(body: CreateIndexBody) -> DeclaredIndex:
    try:
        vector_type = VectorType(body.vector_type or VectorType.DENSE.value)
    except ValueError as error:
        raise InvalidRequest(f"Vector type must be dense or sparse, got '{body.vector_type}'") from error
    if vector_type is VectorType.SPARSE:
        if body.dimension:
            raise InvalidRequest("dimension should not be specified for sparse indexes")
        return DeclaredIndex(0, body.metric or Metric.DOTPRODUCT.value, vector_type)
    if body.dimension is None:
        raise UnprocessableBody("Missing field 'dimension': a dense index needs one", field="dimension")
    return DeclaredIndex(body.dimension, body.metric or Metric.COSINE.value, vector_type)


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
    collection = spec[kind].get("source_collection")
    if collection is not None:
        raise NotFound(f"Resource {str(collection)[:80]} not found: there are no collections here, but backups")
    # Clients of generation 3 send null for what is left out, and cannot read it back.
    return {kind: {field: value for field, value in spec[kind].items() if value is not None}}


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
