"""Which right a REST request needs, and asking for it: the one place where REST looks at API keys."""

from __future__ import annotations

from query_api.access import Access, Grant, key_of_headers
from query_api.rest.addressing import Address
from query_api.rest.exchange import Scope
from schemas.keys import Role

__all__ = ["Rights", "is_health", "is_local_socket"]

# Answered to everybody, so that whoever starts and restarts processes needs no key; they name no index then.
_OPEN = frozenset({"/healthz", "/readyz"})
# Reads that are sent by POST, since they have a body. Whatever does not stand here is a write: a new route is closed to
# keys that may only read until somebody has thought about it.
_READS_BY_POST = frozenset({"/query", "/describe_index_stats", "/vectors/fetch_by_metadata"})
_RECORDS, _SEARCH = "/records/namespaces/", "/search"
_NAMESPACES, _DOCUMENT_READS = "/namespaces/", ("/documents/search", "/documents/fetch", "/documents/list")
# Fills namespaces that its files name, so that it is for keys that reach all of them.
_IMPORTS = "/bulk/imports"
# First segments of an index's paths; asked of the control plane, they are answered with how to reach an index.
_OF_AN_INDEX = frozenset({"bulk", "describe_index_stats", "namespaces", "query", "records", "vectors"})
# Control-plane paths for keys that are scoped to some indexes; the listing shows only those.
_FOR_SCOPED = frozenset({"docs", "healthz", "openapi.json", "readyz"})


class Rights:
    """Asks `access` in the words of REST."""

    def __init__(self, access: Access) -> None:
        self.access = access

    async def authenticate(self, scope: Scope, headers: dict[bytes, bytes], address: Address) -> Grant:
        """Return what the request's key grants, and leave it for those who ask later.

        Raises `Unauthenticated`, before anything tells whether an index exists.
        """
        is_open = is_health(address) or _is_own_metrics(scope, address)
        return await self.access.admit(key_of_headers(headers), is_open=is_open)

    def authorize(self, grant: Grant, scope: Scope, address: Address) -> None:
        """Raise `Forbidden` unless `grant` reaches what is addressed, with the right that is needed."""
        method, path = scope["method"], address.path
        if not address.is_control:
            name = address.spec.name if address.spec is not None else address.missing_name
            grant.check_index(name)
            grant.check_role(_role_at_index(method, path))
            if path.startswith(_IMPORTS):
                grant.check_whole_index()
            return
        first, _, rest = path[1:].partition("/")
        if first in _OF_AN_INDEX:
            grant.check_role(_role_at_index(method, path))
            return
        grant.check_role(Role.READ if method == "GET" and first != "keys" else Role.ADMIN)
        if first == "indexes":
            name = rest.partition("/")[0]
            if name:
                grant.check_index(name)
            if rest.partition("/")[2]:
                # Backups tell of all namespaces.
                grant.check_whole_index()
            if method != "GET" and not name:
                grant.check_unscoped()
        elif first == "metrics":
            if not _is_own_metrics(scope, address):
                grant.check_unscoped()
        elif first not in _FOR_SCOPED:
            grant.check_unscoped()


def is_health(address: Address) -> bool:
    """Say whether a request only asks whether this process is alive or ready."""
    return address.is_control and address.path in _OPEN


def is_local_socket(scope: Scope) -> bool:
    """Say whether a request came by a Unix socket of this server, which only its own user can open."""
    server = scope.get("server")
    return server is not None and str(server[0]).startswith("/")


def _is_own_metrics(scope: Scope, address: Address) -> bool:
    """Say whether another API process of this server asks for the metrics of this one."""
    return address.is_control and address.path == "/metrics" and is_local_socket(scope)


def _role_at_index(method: str, path: str) -> Role:
    if method == "GET" or path in _READS_BY_POST:
        return Role.READ
    if method != "POST":
        # A namespace may be called like a route: its deletion is none the less a write.
        return Role.WRITE
    if path.startswith(_RECORDS) and path.endswith(_SEARCH):
        return Role.READ
    if path.startswith(_NAMESPACES) and path.endswith(_DOCUMENT_READS):
        return Role.READ
    return Role.WRITE
