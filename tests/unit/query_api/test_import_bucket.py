"""Imports from S3: a real S3 protocol server in a process of its own, read by obstore."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.request

import boto3
import pytest

from query_api.imports.rows import ParquetRows
from query_api.imports.source import source_of
from schemas.errors import Forbidden, InvalidRequest
from schemas.indexes import IndexSpec, Metric
from tests.support.parquet_files import plain_rows, write_rows

SPEC = IndexSpec("demo", "x" * 22, 1, 4, Metric.DOTPRODUCT)
ALLOWED = ("s3://exports/articles",)


@pytest.fixture(scope="module")
def endpoint():
    """Address of the server, which chooses its port itself."""
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], stderr=subprocess.PIPE, text=True
    )
    try:
        found = None
        for line in process.stderr:
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found:
                break
        assert found, "the S3 server does not say where it listens"
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(found[0], timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield found[0]
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def bucket(endpoint, monkeypatch):
    """An empty bucket, and the environment of a server that may read it."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    made = boto3.resource("s3").Bucket("exports")
    made.create()
    made.objects.delete()
    return made


def put(bucket, tmp_path, key, rows):
    write_rows(tmp_path / "one.parquet", rows)
    bucket.put_object(Key=key, Body=(tmp_path / "one.parquet").read_bytes())


def test_objects_below_a_prefix_are_read_as_files(bucket, tmp_path):
    """One folder of the prefix per namespace; rows can be read from any beginning."""
    put(bucket, tmp_path, "articles/two/b.parquet", plain_rows(3_000))
    put(bucket, tmp_path, "articles/__default__/deep/a.parquet", plain_rows(5))
    put(bucket, tmp_path, "articles/two/a.parquet", plain_rows(7))
    bucket.put_object(Key="articles/two/_SUCCESS", Body=b"")
    put(bucket, tmp_path, "articles-of-others/two/a.parquet", plain_rows(7))
    source = source_of("s3://exports/articles/", ALLOWED)
    files = source.files()
    assert [(file.namespace, file.path) for file in files] == [
        ("__default__", "__default__/deep/a.parquet"),
        ("two", "two/a.parquet"),
        ("two", "two/b.parquet"),
    ]
    opened = source.open(files[2])
    ids = [event.id for batch in ParquetRows(opened, "b", SPEC).batches(1_500) for event in batch.events]
    assert ids == [f"r{n}" for n in range(1_500, 3_000)]
    opened.close()


def test_object_that_changed_is_told(bucket, tmp_path):
    """Its ETag is another one."""
    put(bucket, tmp_path, "articles/two/a.parquet", plain_rows(7))
    source = source_of("s3://exports/articles", ALLOWED)
    (file,) = source.files()
    put(bucket, tmp_path, "articles/two/a.parquet", plain_rows(7, begin=1))
    with pytest.raises(InvalidRequest, match=r"two/a\.parquet has changed"):
        source.verify(file)
    bucket.objects.delete()
    for look in (source.verify, source.open):
        with pytest.raises(InvalidRequest, match="Cannot read"):
            look(file)


def test_object_in_no_folder_and_missing_bucket_are_told(bucket, tmp_path):
    """What cannot be listed says why."""
    put(bucket, tmp_path, "articles/a.parquet", plain_rows(7))
    with pytest.raises(InvalidRequest, match="in no namespace's folder"):
        source_of("s3://exports/articles", ALLOWED).files()
    with pytest.raises(InvalidRequest, match=r"Cannot list s3://missing/"):
        source_of("s3://missing/x", ("s3://missing",)).files()


def test_prefix_that_is_not_allowed_is_refused():
    """A name that only begins alike is another place."""
    for uri in ("s3://exports", "s3://exports/articles-of-others", "s3://export/articles"):
        with pytest.raises(Forbidden, match="import_dirs"):
            source_of(uri, ALLOWED)
    source_of("s3://exports/articles/deeper", ALLOWED)
