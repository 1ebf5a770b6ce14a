"""Bulk imports by the official Python client against a live server."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import httpx2
import pytest
from pinecone import Pinecone, ServerlessSpec
from pinecone.exceptions import ForbiddenException, NotFoundException, PineconeApiException

from query_api.imports.service import ImportOptions
from tests.support.api_server import PATIENT, ApiServer
from tests.support.parquet_files import plain_rows, write_rows

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The only folder below which the server may read."""
    return tmp_path_factory.mktemp("allowed")


@pytest.fixture(scope="module")
def server(tmp_path_factory, root):
    options = replace(PATIENT, imports=ImportOptions(dirs=(str(root),)))
    with ApiServer(tmp_path_factory.mktemp("api"), options=options, index_ports=32) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with Pinecone(api_key="any", host=server.url) as made:
        yield made


@pytest.fixture
def index(client):
    name = f"import-{next(_NUMBERS)}"
    client.create_index(name, dimension=4, metric="dotproduct", spec=ServerlessSpec(cloud="aws", region="us-east-1"))
    with client.Index(name) as opened:
        yield opened


@pytest.fixture
def folder(root):
    made = root / f"data-{next(_NUMBERS)}"
    made.mkdir()
    return made


def ended(index, import_id):
    deadline = time.monotonic() + 60
    while True:
        described = index.describe_import(import_id)
        if described.status not in ("Pending", "InProgress"):
            return described
        assert time.monotonic() < deadline, described
        time.sleep(0.02)


def partitions(index):
    stats = httpx2.post(f"{index.host}/describe_index_stats", json={}).raise_for_status().json()
    return stats["freshness"]["partitions"]


def counts(index):
    return {name: one.vector_count for name, one in index.describe_index_stats().namespaces.items()}


def wait_for_counts(index, **wanted):
    deadline = time.monotonic() + 20
    while counts(index) != wanted:
        assert time.monotonic() < deadline, counts(index)
        time.sleep(0.02)


def test_files_of_folders_become_namespaces(index, folder):
    """Each folder is a namespace, `__default__` the default one; rows, metadata and sparse values arrive whole."""
    write_rows(folder / "__default__" / "a.parquet", plain_rows(1_500))
    write_rows(folder / "one" / "a.parquet", plain_rows(10))
    write_rows(folder / "one" / "b.parquet", plain_rows(10, begin=10))
    rows = [
        {
            "id": "both",
            "values": [1, 2, 3, 4],
            "metadata": None,
            "sparse_values": {"indices": [7, 2], "values": [1, 2]},
        },
        {
            "id": "dense",
            "values": [4, 3, 2, 1],
            "metadata": '{"tags": ["a", "b"], "gone": null}',
            "sparse_values": None,
        },
    ]
    write_rows(folder / "two" / "deep" / "c.parquet", rows)
    started = index.start_import(uri=f"file://{folder}")
    done = ended(index, started.id)
    assert (done.status, done.error, done.records_imported, done.percent_complete) == ("Completed", None, 1_522, 100.0)
    assert done.uri == f"file://{folder}"
    assert done.created_at < done.finished_at
    wait_for_counts(index, __default__=1_500, one=20, two=2)
    fetched = index.fetch(ids=["both", "dense"], namespace="two").vectors
    assert list(fetched["both"].values) == [1, 2, 3, 4]
    assert (fetched["both"].sparse_values.indices, fetched["both"].sparse_values.values) == ([2, 7], [2, 1])
    assert not fetched["both"].metadata
    assert fetched["dense"].metadata == {"tags": ["a", "b"]}
    assert index.fetch(ids=["r1499"]).vectors["r1499"].metadata == {"n": 1499}
    assert [each.id for each in index.list_imports()] == [started.id]


def test_bad_row_ends_an_import_before_anything_is_written(index, folder):
    """Without a word on errors the first bad row ends the import, with its file, number and reason; nothing goes in."""
    write_rows(folder / "one" / "a.parquet", plain_rows(3_000))
    rows = plain_rows(2_000)
    rows[1_234]["values"] = [1, 2, 3]
    write_rows(folder / "one" / "b.parquet", rows)
    done = ended(index, index.start_import(uri=str(folder)).id)
    assert (done.status, done.records_imported) == ("Failed", 0)
    assert done.error == (
        "File one/b.parquet, row 1234 (from 0): Vector dimension 3 does not match the dimension of the index 4. "
        "Nothing was imported."
    )
    assert counts(index) == {}


def test_bad_rows_are_left_out_and_told(index, folder):
    """With `continue` bad rows are counted and the first of them told; all others go in."""
    rows = plain_rows(2_500)
    rows[3]["values"] = [0, 0, 0, 0]
    rows[4]["metadata"] = '{"nested": {"a": 1}}'
    rows[5]["metadata"] = "no JSON"
    rows[6]["id"] = ""
    rows[7]["id"] = None
    rows[8]["values"] = None
    rows[9]["values"] = [1, 2, float("nan"), 4]
    rows[10]["values"] = [1, 2, None, 4]
    rows[2_400]["id"] = "ü"
    write_rows(folder / "one" / "a.parquet", rows)
    started = index.start_import(uri=str(folder), error_mode="continue")
    done = ended(index, started.id)
    assert (done.status, done.records_imported) == ("Completed", 2_491)
    wait_for_counts(index, one=2_491)
    raw = server_answer(index, f"/bulk/imports/{started.id}")
    assert raw["badRows"] == 9
    assert raw["validationResult"] == {"importErrors": 9, "importSuccesses": 2_491}
    assert [(bad["file"], bad["row"]) for bad in raw["badRowSample"]] == [
        ("one/a.parquet", row) for row in (3, 4, 5, 6, 7, 8, 9, 10, 2_400)
    ]


def server_answer(index, path):
    import httpx2  # noqa: PLC0415

    answer = httpx2.get(index.host + path, headers={"x-pinecone-api-version": "2026-07"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_namespace_that_exists_is_not_imported_into(index, folder):
    """An import makes namespaces and never changes one that somebody else has filled; the default one may be empty."""
    index.upsert(vectors=[{"id": "a", "values": [1, 2, 3, 4]}], namespace="taken")
    write_rows(folder / "free" / "a.parquet", plain_rows(5))
    write_rows(folder / "taken" / "a.parquet", plain_rows(5))
    done = ended(index, index.start_import(uri=str(folder)).id)
    assert (done.status, done.error) == (
        "Failed",
        "Namespace 'taken' exists already: an import makes new namespaces only.",
    )
    index.upsert(vectors=[{"id": "a", "values": [1, 2, 3, 4]}])
    other = folder / "other"
    write_rows(other / "__default__" / "a.parquet", plain_rows(5))
    done = ended(index, index.start_import(uri=str(other)).id)
    assert done.error == "The default namespace is not empty: an import into it needs an empty one."
    wait_for_counts(index, __default__=1, taken=1)


def test_place_that_is_not_allowed_is_refused(index, folder, tmp_path):
    """Only what lies under `import_dirs` is read, wherever a path or a link leads."""
    write_rows(tmp_path / "one" / "a.parquet", plain_rows(5))
    for uri in (f"file://{tmp_path}", str(tmp_path), f"{folder}/../../{tmp_path.name}", "/etc", "s3://bucket/x"):
        with pytest.raises(ForbiddenException, match="import_dirs"):
            index.start_import(uri=uri)
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(ForbiddenException, match="import_dirs"):
        index.start_import(uri=str(folder / "link"))
    inner = folder / "inner"
    (inner / "one").mkdir(parents=True)
    (inner / "one" / "a.parquet").symlink_to(tmp_path / "one" / "a.parquet")
    done = ended(index, index.start_import(uri=str(inner)).id)
    assert (done.status, done.error) == ("Failed", "File one/a.parquet leads out of what import_dirs allows.")
    assert counts(index) == {}


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("gs://bucket/x", "of no kind that can be imported"),
        ("relative/path", "no absolute path"),
        ("file://elsewhere/x", "names another machine"),
        ("s3://", "names no bucket"),
        ("s3://bucket/a/../b", "a part that is"),
        ("x" * 1_501, "1 to 1500 characters"),
    ],
)
def test_uri_that_names_no_place_is_refused_at_once(index, uri, message):
    """A client's mistake is told in the answer of the call that made it."""
    with pytest.raises(PineconeApiException, match=message) as raised:
        index.start_import(uri=uri)
    assert raised.value.status_code == 400


def test_missing_or_empty_folder_is_told(index, folder):
    """A folder that is not there is refused at once, one without Parquet files ends the import."""
    with pytest.raises(PineconeApiException, match="no directory on the server"):
        index.start_import(uri=str(folder / "missing"))
    done = ended(index, index.start_import(uri=str(folder)).id)
    assert done.status == "Failed"
    assert done.error.startswith("There are no .parquet files")
    write_rows(folder / "a.parquet", plain_rows(1))
    assert "in no namespace's folder" in ended(index, index.start_import(uri=str(folder)).id).error


def test_path_that_cannot_be_followed_is_the_clients_mistake(index, folder):
    """Names that are too long, links in a circle, files in place of folders."""
    (folder / "circle").symlink_to(folder / "circle")
    (folder / "file").write_text("x")
    for name in ("x" * 300, "circle", "circle/deeper", "file", "file/deeper"):
        with pytest.raises(PineconeApiException) as raised:
            index.start_import(uri=str(folder / name))
        assert raised.value.status_code == 400, name
    write_rows(folder / "inner" / "one" / "a.parquet", plain_rows(1))
    (folder / "inner" / "one" / "b.parquet").symlink_to(folder / "circle")
    done = ended(index, index.start_import(uri=str(folder / "inner")).id)
    assert (done.status, done.records_imported) == ("Failed", 0)


@pytest.mark.parametrize("mode", ["abort", "continue"])
def test_file_that_is_not_parquet_ends_an_import_before_anything_is_written(index, folder, mode):
    """All footers are looked at first."""
    write_rows(folder / "one" / "a.parquet", plain_rows(5))
    (folder / "one" / "b.parquet").write_bytes(b"PAR1 nothing else")
    done = ended(index, index.start_import(uri=str(folder), error_mode=mode).id)
    assert (done.status, done.records_imported) == ("Failed", 0)
    assert done.error.startswith("File one/b.parquet cannot be read as Parquet")
    assert counts(index) == {}


def test_imports_are_listed_in_pages_and_missing_ones_are_not_found(index, folder):
    """Newest first, as many as asked for."""
    write_rows(folder / "one" / "a.parquet", plain_rows(1))
    made = []
    for _ in range(5):
        made.append(index.start_import(uri=str(folder)).id)
        ended(index, made[-1])
    assert [each.id for each in index.list_imports(limit=2)] == made[::-1]
    page = index.list_imports_paginated(limit=2)
    assert [each.id for each in page] == made[:2:-1]
    assert [each.id for each in index.list_imports_paginated(limit=3, pagination_token=page.pagination.next)] == made[
        2::-1
    ]
    with pytest.raises(NotFoundException, match="Import nope not found"):
        index.describe_import("nope")
    with pytest.raises(NotFoundException):
        index.cancel_import("nope")


def test_cancelled_import_stops_and_keeps_what_was_imported(index, folder):
    """Cancelling is at once; an import that has ended is not changed by it."""
    write_rows(folder / "one" / "a.parquet", plain_rows(60_000), group_rows=60_000)
    started = index.start_import(uri=str(folder), error_mode="continue")
    deadline = time.monotonic() + 30
    while not counts(index):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    index.cancel_import(started.id)
    done = index.describe_import(started.id)
    assert done.status == "Cancelled"
    # What had been appended by then comes into sight.
    deadline = time.monotonic() + 60
    while any(each["lagEvents"] != 0 for each in partitions(index)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    seen = counts(index)["one"]
    assert 0 < seen < 60_000
    time.sleep(0.5)
    assert counts(index)["one"] == seen
    index.cancel_import(started.id)
    assert index.describe_import(started.id) == done


def test_import_of_an_index_that_goes_away_ends(index, folder, client):
    """Nothing is left running, and an index of the same name knows nothing of the import."""
    write_rows(folder / "one" / "a.parquet", plain_rows(60_000), group_rows=60_000)
    started = index.start_import(uri=str(folder))
    name = next(each.name for each in client.list_indexes() if each.host == index.host)
    client.delete_index(name)
    client.create_index(name, dimension=4, metric="dotproduct", spec=ServerlessSpec(cloud="aws", region="us-east-1"))
    with client.Index(name) as anew:
        assert list(anew.list_imports()) == []
        with pytest.raises(NotFoundException):
            anew.describe_import(started.id)
        write_rows(folder / "one" / "a.parquet", plain_rows(2))
        assert ended(anew, anew.start_import(uri=str(folder)).id).records_imported == 2
