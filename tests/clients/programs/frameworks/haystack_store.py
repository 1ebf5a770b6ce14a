"""Haystack's Pinecone store, unchanged: it makes its index itself, told nothing but host and key by the environment."""

import asyncio
import sys
from pathlib import Path

from haystack import Document
from haystack_integrations.components.retrievers.pinecone import PineconeEmbeddingRetriever
from haystack_integrations.document_stores.pinecone import PineconeDocumentStore

sys.path.append(str(Path(__file__).resolve().parent.parent / "python"))
from embedding import ABOUT, TEXTS, WORDS, embed
from walk import passed, until

ANIMAL = {"field": "meta.animal", "operator": "==", "value": True}
LONG = {"field": "meta.length", "operator": ">", "value": 8}


def documents():
    return [
        Document(id=f"d{n}", content=text, meta=about, embedding=embed(text))
        for n, (text, about) in enumerate(zip(TEXTS, ABOUT, strict=True))
    ]


def contents(found):
    return [document.content for document in found]


def write_documents(store):
    assert store.write_documents(documents()) == 5
    until(store.count_documents, lambda count: count == 5)


def retrieve_by_embedding(store):
    retriever = PineconeEmbeddingRetriever(document_store=store, top_k=2)
    found = retriever.run(query_embedding=embed("cat"))["documents"]
    assert contents(found) == ["cat cat", "cat dog"]
    assert found[0].score > 0.99
    assert found[0].id == "d0"


def retrieve_with_a_filter(store):
    retriever = PineconeEmbeddingRetriever(document_store=store, top_k=10)
    where = {"operator": "AND", "conditions": [ANIMAL, LONG]}
    assert contents(retriever.run(query_embedding=embed("cat"), filters=where)["documents"]) == ["dog dog dog"]


def filter_documents(store):
    assert sorted(contents(store.filter_documents(ANIMAL))) == ["cat cat", "cat dog", "dog dog dog"]
    assert len(store.filter_documents()) == 5


def count_documents_by_filter(store):
    assert store.count_documents_by_filter(ANIMAL) == 3


def retrieve_asynchronously(store):
    async def run():
        # A store of its own: its asyncio client belongs to this loop.
        asked = PineconeDocumentStore.from_dict(store.to_dict())
        retriever = PineconeEmbeddingRetriever(document_store=asked, top_k=1)
        found = await retriever.run_async(query_embedding=embed("car sun"))
        await asked.close_async()
        return found["documents"]

    assert contents(asyncio.run(run())) == ["car sun"]


def update_by_filter(store):
    assert store.update_by_filter(LONG, meta={"size": "long"}) == 1
    size = {"field": "meta.size", "operator": "==", "value": "long"}
    until(lambda: contents(store.filter_documents(size)), lambda found: found == ["dog dog dog"])


def delete_documents(store):
    store.delete_documents(["d0"])
    until(store.count_documents, lambda count: count == 4)
    store.delete_by_filter(ANIMAL)
    until(lambda: sorted(contents(store.filter_documents())), lambda found: found == ["car sun", "sun"])
    store.delete_all_documents()
    until(store.count_documents, lambda count: count == 0)


def main():
    store = PineconeDocumentStore(index="haystack", namespace="docs", dimension=len(WORDS) + 1, metric="cosine")
    for step in (
        write_documents,
        retrieve_by_embedding,
        retrieve_with_a_filter,
        filter_documents,
        count_documents_by_filter,
        retrieve_asynchronously,
        update_by_filter,
        delete_documents,
    ):
        step(store)
        passed(f"haystack {step.__name__}")
    store.close()


main()
