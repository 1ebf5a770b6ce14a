"""Whatever a client sends to any route of the OpenAPI document, well-formed or not, is never an error of the server."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

from tests.support.freshet import Freshet, records, wait_until

DEMO = {"name": "demo", "dimension": 4, "metric": "dotproduct", "spec": {"serverless": {"cloud": "a", "region": "b"}}}
LIBRARY = {
    "name": "library",
    "schema": {"fields": {"embedding": {"type": "dense_vector", "dimension": 4}, "terms": {"type": "sparse_vector"}}},
}
# Routes of the whole server; all others are those of an index.
CONTROL = ("indexes", "collections", "backups", "keys", "restore-jobs")
SERVER = ("healthz", "readyz", "metrics", "openapi.json")


@dataclass
class Tally:
    """What was sent and what came back."""

    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Freshet]:
    with Freshet(tmp_path_factory.mktemp("openapi")) as started:
        # Some of the requests make keys: with the first one the server would be closed to all others.
        started.key = started.call("POST", "/keys", {"role": "admin"})["key"]
        started.call("POST", "/indexes", DEMO)
        started.call("POST", "/indexes", LIBRARY)
        started.call("POST", "/i/demo/vectors/upsert", {"vectors": records(10)})
        yield started


def send_to(server: Freshet, operation: schemathesis.APIOperation, count: int, tally: Tally) -> None:
    """Send `count` requests to one route, half of them against its schema."""
    first = operation.path.strip("/").partition("/")[0]
    index = "library" if "/documents/" in operation.path else "demo"
    base = server.url if first in (*CONTROL, *SERVER) else f"{server.url}/i/{index}"
    session = requests.Session()
    session.headers["api-key"] = server.key

    def send(case: schemathesis.Case) -> None:
        answer = case.call(base_url=base, session=session, timeout=60)
        tally.statuses[answer.status_code] += 1
        assert answer.status_code < 500, f"{case.method} {case.path}: {answer.status_code} {answer.text[:300]}"
        if case.path == "/indexes" and case.method == "POST" and answer.status_code == 201:
            # Else thousands of them would live at once.
            session.delete(f"{server.url}/indexes/{answer.json()['name']}")

    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        chosen = settings(
            max_examples=count // 2,
            deadline=None,
            database=None,
            derandomize=False,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        try:
            chosen(given(case=operation.as_strategy(generation_mode=mode))(send))()
        except AssertionError as error:
            tally.failures.append(str(error))
        except Exception as error:
            # A route without anything to get wrong has no cases against its schema.
            if "Unsatisfiable" not in type(error).__name__:
                raise
    session.close()


@pytest.mark.parametrize(
    "least",
    [
        pytest.param(20_000, marks=pytest.mark.timeout(3_600)),
        pytest.param(100_000, marks=[pytest.mark.soak, pytest.mark.timeout(7_200)]),
    ],
)
def test_no_request_is_an_error_of_the_server(server, least):
    """Requests by and against the schema of every route: all below 500, and the server lives as before."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json", headers={"api-key": server.key})
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 20
    tally = Tally()
    # Some routes have nothing to get wrong, and send half: what is missing then is sent in another round.
    while (missing := least - tally.statuses.total()) > 0 and not tally.failures:
        for operation in operations:
            send_to(server, operation, max(10, math.ceil(missing / len(operations))), tally)
    print(f"{tally.statuses.total()} requests to {len(operations)} routes: {dict(sorted(tally.statuses.items()))}")
    assert not tally.failures, "\n".join(tally.failures)
    assert tally.statuses[200] > 100
    assert tally.statuses[400] > 100
    assert "request.failed" not in server.log_text
    # Some of the requests were deletes.
    body = {"vectors": records(1), "namespace": "afterwards"}
    server.call("POST", "/i/demo/vectors/upsert", body)
    wait_until(
        lambda: server.call("POST", "/i/demo/query", {"id": "r0", "topK": 1, "namespace": "afterwards"})["matches"]
    )
