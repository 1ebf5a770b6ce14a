"""LangChain's Pinecone store, unchanged: by index name, told nothing but host and key by the environment."""

import asyncio
import math
import sys
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_pinecone import PineconeVectorStore
from pinecone import Pinecone, ServerlessSpec

sys.path.append(str(Path(__file__).resolve().parent.parent / "python"))
from embedding import ABOUT, TEXTS, WORDS, embed
from walk import passed, until

INDEX = "langchain"
IDS = [f"d{n}" for n in range(len(TEXTS))]


class FakeEmbeddings(Embeddings):
    def embed_documents(self, texts):
        return [embed(text) for text in texts]

    def embed_query(self, text):
        return embed(text)


def documents():
    return [Document(page_content=text, metadata=about) for text, about in zip(TEXTS, ABOUT, strict=True)]


def cosine(left, right):
    return sum(a * b for a, b in zip(left, right, strict=True)) / (math.hypot(*left) * math.hypot(*right))


def texts(found):
    return [document.page_content for document in found]


def add_documents(store):
    assert store.add_documents(documents(), ids=IDS) == IDS
    until(lambda: len(store.similarity_search("cat", k=10)), lambda count: count == 5)


def similarity_search_with_score(store):
    (first, score), (second, _) = store.similarity_search_with_score("cat", k=2)
    assert texts([first, second]) == ["cat cat", "cat dog"]
    assert first.id == "d0"
    assert first.metadata == {"animal": True, "length": 7.0}
    assert abs(score - cosine(embed("cat"), embed("cat cat"))) < 1e-6


def similarity_search_with_a_filter(store):
    found = store.similarity_search("cat", k=10, filter={"animal": {"$eq": False}})
    assert sorted(texts(found)) == ["car sun", "sun"]
    found = store.similarity_search("cat", k=10, filter={"$and": [{"animal": True}, {"length": {"$gt": 8}}]})
    assert texts(found) == ["dog dog dog"]


def similarity_search_with_relevance_scores(store):
    found = store.similarity_search_with_relevance_scores("sun", k=1)
    assert found[0][0].page_content == "sun"
    assert 0.9 < found[0][1] <= 1.0


def maximal_marginal_relevance(store):
    plain = store.similarity_search("cat", k=2)
    varied = store.max_marginal_relevance_search("cat", k=2, fetch_k=5, lambda_mult=0.1)
    assert texts(plain) == ["cat cat", "cat dog"]
    assert varied[0].page_content == "cat cat"
    assert varied[1].page_content != "cat dog"


def retriever(store):
    retriever = store.as_retriever(search_type="mmr", search_kwargs={"k": 3, "filter": {"animal": True}})
    assert {*texts(retriever.invoke("dog"))} == {"cat cat", "cat dog", "dog dog dog"}


def other_namespace(store):
    texts_of_it = PineconeVectorStore.from_texts(["sun sun"], FakeEmbeddings(), index_name=INDEX, namespace="other")
    until(lambda: texts(texts_of_it.similarity_search("sun", k=3)), lambda found: found == ["sun sun"])
    assert "sun sun" not in texts(store.similarity_search("sun", k=10))


def search_asynchronously(store):
    async def search():
        return await store.asimilarity_search("car", k=1)

    assert texts(asyncio.run(search())) == ["car sun"]


def delete_documents(store):
    store.delete(ids=["d0"])
    until(lambda: texts(store.similarity_search("cat", k=10)), lambda found: "cat cat" not in found)
    store.delete(filter={"animal": {"$eq": False}})
    until(lambda: texts(store.similarity_search("cat", k=10)), lambda found: found == ["cat dog", "dog dog dog"])
    store.delete(delete_all=True)
    until(lambda: store.similarity_search("cat", k=10), lambda found: found == [])


def main():
    client = Pinecone()
    spec = ServerlessSpec(cloud="aws", region="us-east-1")
    client.create_index(INDEX, dimension=len(WORDS) + 1, metric="cosine", spec=spec)
    store = PineconeVectorStore(index_name=INDEX, embedding=FakeEmbeddings())
    for step in (
        add_documents,
        similarity_search_with_score,
        similarity_search_with_a_filter,
        similarity_search_with_relevance_scores,
        maximal_marginal_relevance,
        retriever,
        other_namespace,
        search_asynchronously,
        delete_documents,
    ):
        step(store)
        passed(f"langchain {step.__name__}")
    client.delete_index(INDEX)


main()
