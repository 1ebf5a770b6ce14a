"""Python client 8.1.2 over gRPC (grpcio): by name where it understands the hosts that it is given, else by host."""

import os

import control
import grpc_steps
import guide
import pinecone
from pinecone.grpc import GRPCClientConfig, PineconeGRPC
from walk import API_KEY, URL, Walk, take

CERTIFICATE = os.environ.get("FRESHET_CA")


def main() -> None:
    trusted = {"ssl_ca_certs": CERTIFICATE} if CERTIFICATE else {}
    client = PineconeGRPC(api_key=API_KEY, host=URL, **trusted)
    walk = Walk(pinecone, client, vector_class=pinecone.Vector, is_binary=True)

    config = GRPCClientConfig(secure=bool(CERTIFICATE))

    def by_name(name):
        return client.Index(name, grpc_config=config)

    def by_host(name):
        return client.Index(host=client.describe_index(name).host.rpartition("//")[2], grpc_config=config)

    guide.make_indexes(client, control.spec(walk))
    # grpcio takes http:// for a part of the host's name; https://, or no scheme, it understands.
    is_by_name = not client.describe_index(guide.INDEX).host.startswith("http://")
    walk.open_index = by_name if is_by_name else by_host
    walk.open_otherwise = by_host
    walk.upsert_in_background = lambda index, chunks: [index.upsert(vectors=chunk, async_req=True) for chunk in chunks]
    walk.index = walk.open_index(guide.INDEX)
    take(walk, (*grpc_steps.GUIDE, *grpc_steps.RECORDS))


main()
