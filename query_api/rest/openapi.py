"""One OpenAPI document for all routes, the hot ones included."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from query_api.rest.document_models import DOCUMENT_MODELS
from query_api.rest.models import DOCUMENTED, component_schemas

__all__ = ["add_document"]


def add_document(app: FastAPI) -> None:
    """Let `app.openapi` return the document with the bodies that we decode ourselves."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            built = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            schemas = built.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(component_schemas((*DOCUMENTED, *DOCUMENT_MODELS)))
            app.openapi_schema = built
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign] # the documented way to extend the document
