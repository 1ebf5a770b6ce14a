"""The table of filters over gRPC: the same cases, the same matches, the same refusals.

But for those that are nested deeper than protobuf carries: what is deeper is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx2
import pytest

from query_api.grpc import vector_service_pb2 as pb
from tests.contract.api_contract import Api
from tests.contract.filter_contract import NUMBERED, REFUSALS, FilterContract
from tests.contract.test_api_grpc import GrpcApi
from tests.support.api_server import ApiServer
from tests.support.grpc_client import GrpcClient

_SPACES = itertools.count(1)
# A condition and its list are five messages within each other; protobuf takes a hundred.
_LEVELS_MAX = 20


def levels(where: Any) -> int:
    """Return how many $and and $or lie around the innermost condition."""
    if isinstance(where, list):
        return max((levels(each) for each in where), default=0)
    if not isinstance(where, dict):
        return 0
    return max((levels(value) + (key in ("$and", "$or")) for key, value in where.items()), default=0)


def carried(cases: list[Any]) -> list[Any]:
    return [case for case in cases if levels(case.values[0]) <= _LEVELS_MAX]


class TestFiltersOverGrpc(FilterContract):
    @pytest.fixture(scope="class")
    @classmethod
    def apis(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], GrpcApi]]:
        with ApiServer(tmp_path_factory.mktemp("filters")) as server:
            body = {"name": "filters", "dimension": 4, "metric": "euclidean"}
            host = httpx2.post(f"{server.url}/indexes", json=body).json()["host"]
            with GrpcClient(host.removeprefix("http://")) as client:
                yield lambda: GrpcApi({"euclidean": client}, "euclidean", f"space-{next(_SPACES)}")

    @pytest.mark.parametrize(("where", "matching"), carried(NUMBERED))
    def test_reads_find_what_matches(self, filled: Api, where: dict[str, Any], matching: tuple[str, ...]) -> None:
        super().test_reads_find_what_matches(filled, where, matching)

    @pytest.mark.parametrize(("where", "matching"), carried(NUMBERED))
    def test_writes_change_what_matches(self, apis: Any, where: dict[str, Any], matching: tuple[str, ...]) -> None:
        super().test_writes_change_what_matches(apis, where, matching)

    @pytest.mark.parametrize(("where", "message"), carried(REFUSALS))
    def test_what_is_no_filter_is_refused_everywhere(self, filled: Api, where: Any, message: str) -> None:
        super().test_what_is_no_filter_is_refused_everywhere(filled, where, message)

    def test_what_is_nested_too_deep_for_protobuf_is_refused(self, filled: GrpcApi) -> None:
        """The message cannot be read: the client's mistake, and the connection goes on."""
        inner = b""
        for _ in range(200):
            # Value.struct_value holding Struct.fields[""], in front of what is there: lengths grow outwards.
            entry = b"\x12" + varint(len(inner)) + inner
            struct = b"\x0a" + varint(len(entry)) + entry
            inner = b"\x2a" + varint(len(struct)) + struct
        body = pb.QueryRequest(top_k=1, id="a").SerializeToString() + b"\x1a" + varint(len(struct)) + struct
        call = filled._client.channel.unary_unary("/VectorService/Query")
        with pytest.raises(grpc.RpcError) as caught:
            call(body, timeout=30)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert filled.stats()["totalVectorCount"] > 0


def varint(number: int) -> bytes:
    """Return a number as protobuf writes it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
