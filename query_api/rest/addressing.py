"""Which index a request is for: by the port it came in on, by the path `/i/<index>/...`, by the first label of Host."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from producer.catalog import Catalog
from query_api.rest.exchange import Scope
from schemas.errors import NotFound
from schemas.indexes import IndexSpec

__all__ = ["Address", "Addressing"]

_PREFIX = "/i/"
# First segments of the control plane's paths; no path of an index begins with one of them.
_CONTROL = frozenset(
    {
        "backups",
        "collections",
        "docs",
        "healthz",
        "indexes",
        "keys",
        "metrics",
        "openapi.json",
        "readyz",
        "restore-jobs",
    }
)


@dataclass(frozen=True, slots=True)
class Address:
    """What a request is for: the control plane or an index, and the path within it; `missing` where there is none.

    Not `is_certain` where the catalog, as far as this process has read it, does not have the index.
    """

    path: str
    spec: IndexSpec | None = None
    missing: NotFound | None = None
    is_certain: bool = True

    @property
    def is_control(self) -> bool:
        """Whether the control plane was meant."""
        return self.spec is None and self.missing is None

    @property
    def missing_name(self) -> str | None:
        """The name that a path gave an index that is missing."""
        name = None if self.missing is None else self.missing.facts.get("name")
        return name if isinstance(name, str) else None


class Addressing:
    """Resolves requests against the catalog. The control plane is on `control_port`."""

    def __init__(self, catalog: Catalog, *, control_port: int) -> None:
        self._catalog = catalog
        self._control_port = control_port

    def resolve(self, scope: Scope, host: str) -> Address:
        """Return what a request is for; an address without index where the port or the path names none."""
        path: str = scope["path"]
        server = scope.get("server")
        port = server[1] if server else None
        if port is not None and port != self._control_port:
            spec = self._catalog.by_port(port)
            missing = None if spec is not None else NotFound(f"No index is assigned to port {port}", port=port)
            return Address(path, spec, missing, is_certain=missing is None)
        if path.startswith(_PREFIX):
            name, _, rest = path[len(_PREFIX) :].partition("/")
            try:
                return Address(f"/{rest}", self._catalog.get(unquote(name)))
            except NotFound as error:
                return Address(f"/{rest}", missing=error, is_certain=False)
        if path[1:].partition("/")[0] in _CONTROL:
            # An index that is called like the machine must not hide the control plane.
            return Address(path)
        return self._by_host(path, host)

    async def look_again(self, scope: Scope, host: str) -> Address:
        """Resolve by the catalog as of now: another process may have made the index a moment ago.

        Raises `LogUnavailable`, `OutcomeUnknown`.
        """
        await self._catalog.refresh()
        return self.resolve(scope, host)

    def _by_host(self, path: str, host: str) -> Address:
        """Return the index that the first of several labels of a host name names; addresses have no labels."""
        name = host.rpartition(":")[0] if ":" in host else host
        label, dot, rest = name.partition(".")
        if not dot or not rest or label.isdigit():
            return Address(path)
        try:
            return Address(path, self._catalog.get(label))
        except NotFound:
            return Address(path, is_certain=False)
