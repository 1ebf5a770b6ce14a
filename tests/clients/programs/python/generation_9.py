"""Python client 9.1.0: httpx and msgspec instead of generated models, keyword arguments only."""

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
    take(walk, (*control.CREATE, *control.PROTECTION, *control.TAGS))
    take(walk, (*control.SPARSE, *control.SPARSE_METRIC))
    take(walk, (*data.WRITE, *data.READ, *data.HYBRID, *data.BY_METADATA))
    take(walk, (*namespaces.SEVERAL, *data.CHANGE, *data.BY_FILTER, *data.DELETE))
    take(walk, (*data.POSITIONS, *namespaces.NAMESPACES, *namespaces.CREATE_NAMESPACE, data.ask_in_parallel))
    asynchronous_client = pinecone.AsyncPinecone(api_key=API_KEY, host=URL)
    asyncio.run(asynchronous.take(pinecone, asynchronous_client, asynchronous.by_name))
    take(walk, (control.delete_indexes,))


main()
