"""Python client 10.2.0 over gRPC, its Rust extension: the environment says whether with TLS."""

import os

import control
import grpc_steps
import guide
import pinecone
from walk import API_KEY, URL, Walk, take


def main() -> None:
    client = pinecone.Pinecone(api_key=API_KEY, host=URL)
    walk = Walk(pinecone, client, vector_class=pinecone.Vector, is_binary=True)

    def by_host(name):
        host = client.describe_index(name).host.partition("://")[2]
        return pinecone.GrpcIndex(host=host, api_key=API_KEY, secure="PINECONE_GRPC_SCHEME" not in os.environ)

    walk.open_index = lambda name: client.index(name=name, grpc=True)
    walk.open_otherwise = by_host
    walk.upsert_in_background = lambda index, chunks: [index.upsert_async(vectors=chunk) for chunk in chunks]
    guide.make_indexes(client, control.spec(walk))
    walk.index = walk.open_index(guide.INDEX)
    take(walk, (*grpc_steps.GUIDE, *grpc_steps.RECORDS))


main()
