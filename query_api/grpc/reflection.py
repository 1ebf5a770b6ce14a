"""Server reflection, by which tools learn the services and their messages from the server itself.

Source: https://github.com/grpc/grpc/blob/master/doc/server-reflection.md. Each message is answered as it comes.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError

from query_api.grpc import reflection_pb2 as pb
from query_api.grpc.frames import Messages
from query_api.grpc.streams import Answering
from schemas.errors import Code, InvalidRequest

__all__ = ["DESCRIPTOR", "Reflection"]

DESCRIPTOR = pb.DESCRIPTOR
_SHOWN_CHARACTERS = 200


class Reflection:
    """Tells of the services in `files`, and of every file that they need."""

    def __init__(self, files: Sequence[FileDescriptor]) -> None:
        self._files: dict[str, FileDescriptor] = {}
        for file in files:
            self._add(file)
        self._services = sorted(service.full_name for file in files for service in file.services_by_name.values())

    async def info(self, messages: Messages, answer: Answering) -> None:
        """Answer every question in its turn."""
        while (message := await messages.next()) is not None:
            try:
                request = pb.ServerReflectionRequest.FromString(message)
            except DecodeError as error:
                raise InvalidRequest(f"Invalid request: the message is no ServerReflectionRequest: {error}") from error
            response = pb.ServerReflectionResponse(valid_host=request.host, original_request=request)
            self._answer(request, response)
            await answer(response.SerializeToString())

    def _add(self, file: FileDescriptor) -> None:
        if file.name not in self._files:
            self._files[file.name] = file
            for needed in file.dependencies:
                self._add(needed)

    def _answer(self, request: pb.ServerReflectionRequest, response: pb.ServerReflectionResponse) -> None:
        match request.WhichOneof("message_request"):
            case "list_services":
                response.list_services_response.service.extend(pb.ServiceResponse(name=n) for n in self._services)
            case "file_by_filename":
                file = self._files.get(request.file_by_filename)
                _put(response, file, f"There is no file {request.file_by_filename[:_SHOWN_CHARACTERS]!r}")
            case "file_containing_symbol":
                symbol = request.file_containing_symbol
                _put(response, self._file_of(symbol), f"There is no symbol {symbol[:_SHOWN_CHARACTERS]!r}")
            case "file_containing_extension":
                _put(response, None, "No message has extensions")
            case "all_extension_numbers_of_type":
                name = request.all_extension_numbers_of_type
                if self._file_of(name) is None:
                    _put(response, None, f"There is no type {name[:_SHOWN_CHARACTERS]!r}")
                else:
                    response.all_extension_numbers_response.base_type_name = name
            case _:
                response.error_response.error_code = Code.INVALID_ARGUMENT
                response.error_response.error_message = "The request asks for nothing that is known"

    def _file_of(self, symbol: str) -> FileDescriptor | None:
        """Return the file that a message, enum, service, or part of one, is in."""
        for file in self._files.values():
            package = f"{file.package}." if file.package else ""
            if not symbol.startswith(package):
                continue
            first, _, part = symbol.removeprefix(package).partition(".")
            if first in file.services_by_name:
                if not part or part in file.services_by_name[first].methods_by_name:
                    return file
            elif first in file.message_types_by_name or first in file.enum_types_by_name:
                return file
        return None


def _put(response: pb.ServerReflectionResponse, file: FileDescriptor | None, missing: str) -> None:
    if file is None:
        response.error_response.error_code = Code.NOT_FOUND
        response.error_response.error_message = missing
    else:
        response.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)
