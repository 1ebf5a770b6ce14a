"""A client of `VectorService` by the official library, in the spelling of REST: arguments and answers as JSON."""

from __future__ import annotations

from typing import Any, Self

import grpc
from google.protobuf.json_format import MessageToDict, ParseDict

from query_api.grpc import vector_service_pb2 as pb

__all__ = ["GrpcClient", "method_of"]

_REQUESTS = {
    name: (method.input_type, method.output_type)
    for name, method in pb.DESCRIPTOR.services_by_name["VectorService"].methods_by_name.items()
}


def method_of(channel: grpc.Channel, name: str) -> grpc.UnaryUnaryMultiCallable:
    """Return a method of the service; it takes and gives messages."""
    _, answer = _REQUESTS[name]
    return channel.unary_unary(
        f"/VectorService/{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=getattr(pb, answer.name).FromString,
    )


class GrpcClient:
    """Calls the server at `target` (host:port); raises `grpc.RpcError`."""

    def __init__(
        self,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        options: tuple[tuple[str, Any], ...] = (),
    ) -> None:
        sizes = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
        every = (*sizes, *options)
        if credentials is None:
            self.channel = grpc.insecure_channel(target, options=every)
        else:
            self.channel = grpc.secure_channel(target, credentials, options=every)
        self._methods: dict[str, grpc.UnaryUnaryMultiCallable] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def call(
        self, name: str, request: dict[str, Any], metadata: dict[str, str] | None = None, **options: Any
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the answer, empty values included where protobuf has no absence, and the initial metadata."""
        message = ParseDict(request, getattr(pb, _REQUESTS[name][0].name)())
        answer, call = self.send(name, message, metadata, **options)
        shown = MessageToDict(answer, always_print_fields_with_no_presence=True)
        return shown, {one.key: one.value for one in call.initial_metadata()}

    def send(self, name: str, message: Any, metadata: dict[str, str] | None = None, **options: Any) -> Any:
        """Return the answer as a message, and the call."""
        if name not in self._methods:
            self._methods[name] = method_of(self.channel, name)
        options.setdefault("timeout", 30)
        return self._methods[name].with_call(message, metadata=tuple((metadata or {}).items()), **options)
