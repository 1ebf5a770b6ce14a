"""`DELETE /vectors/delete`, the older spelling of a delete: the same with query parameters."""

from __future__ import annotations


def upserted(http, host, space):
    vectors = [{"id": name, "values": [1, 0, 0, 0]} for name in ("a", "b", "c d")]
    wait = {"x-freshet-wait-visible-ms": "20000"}
    http.post(f"{host}/vectors/upsert", json={"vectors": vectors, "namespace": space}, headers=wait).raise_for_status()


def deleted(http, host, space, query):
    wait = {"x-freshet-wait-visible-ms": "20000"}
    answer = http.delete(f"{host}/vectors/delete?{query}&namespace={space}", headers=wait)
    assert answer.status_code == 200, answer.text
    assert int(answer.headers["x-pinecone-request-lsn"]) > 0
    listed = http.get(f"{host}/vectors/list?namespace={space}").json()
    return [item["id"] for item in listed["vectors"]]


def test_ids_of_the_query_are_deleted(http, host, space):
    """`ids` is repeated, and quoted where it must be."""
    upserted(http, host, space)
    assert deleted(http, host, space, "ids=a&ids=c%20d") == ["b"]


def test_a_namespace_is_emptied_and_stays(http, host, space):
    """`deleteAll=true` deletes the records, not the namespace."""
    upserted(http, host, space)
    assert deleted(http, host, space, "deleteAll=true") == []
    stats = http.get(f"{host}/describe_index_stats").json()
    assert stats["namespaces"][space] == {"vectorCount": 0}


def test_a_delete_of_nothing_and_one_in_an_unknown_namespace_are_told(http, host, space):
    """The mistakes are those of the body's spelling."""
    upserted(http, host, space)
    assert http.delete(f"{host}/vectors/delete?namespace={space}").status_code == 400
    assert http.delete(f"{host}/vectors/delete?ids=a&deleteAll=true&namespace={space}").status_code == 400
    assert http.delete(f"{host}/vectors/delete?ids=a&namespace=never-{space}").status_code == 404
