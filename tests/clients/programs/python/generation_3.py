"""Python client 3.2.2: no version header, `spec` is required, models of an OpenAPI generator."""

import control
import data
import guide
import pinecone
from walk import API_KEY, URL, Walk, take


def main() -> None:
    client = pinecone.Pinecone(api_key=API_KEY, host=URL)
    walk = Walk(pinecone, client, vector_class=pinecone.Vector)
    guide.make_indexes(client, control.spec(walk))
    walk.index = client.Index(guide.INDEX)
    take(walk, (*guide.RECORDS, *guide.BATCHES))
    take(walk, (*control.CREATE, *control.PODS))
    take(walk, (*data.WRITE, *data.READ, *data.HYBRID, *data.CHANGE, *data.DELETE))
    take(walk, (control.delete_indexes,))


main()
