"""Python client 5.4.2: API 2024-07, deletion protection, queries of several namespaces."""

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
    take(walk, (*control.CREATE, *control.PODS, *control.PROTECTION))
    take(
        walk,
        (*data.WRITE, *data.READ, *data.HYBRID, *namespaces.SEVERAL, *data.CHANGE, *data.DELETE, data.ask_in_parallel),
    )
    take(walk, (control.delete_indexes,))


main()
