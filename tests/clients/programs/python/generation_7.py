"""Python client 7.3.0: API 2025-04, tags, sparse indexes, namespaces, asyncio."""

import asyncio

import asynchronous
import control
import data
import guide
import namespaces
import pinecone
from walk import API_KEY, URL, Walk, take


def main() -> None:
    client = pinecone.Pinecone(api_key=API_KEY, host=URL)
    walk = Walk(pinecone, client, vector_class=pinecone.Vector)
    guide.make_indexes(client, control.spec(walk))
    walk.index = client.Index(guide.INDEX)
    take(walk, (*guide.RECORDS, *guide.BATCHES))
    take(walk, (*control.CREATE, *control.PODS, *control.PROTECTION, *control.TAGS))
    take(walk, (*control.SPARSE, *control.SPARSE_METRIC))
    take(walk, (*data.WRITE, *data.READ, *data.HYBRID, *namespaces.SEVERAL, *data.CHANGE, *data.DELETE))
    take(walk, (*namespaces.NAMESPACES, data.ask_in_parallel))
    asynchronous_client = pinecone.PineconeAsyncio(api_key=API_KEY, host=URL)
    asyncio.run(asynchronous.take(pinecone, asynchronous_client, asynchronous.by_host))
    take(walk, (control.delete_indexes,))


main()
