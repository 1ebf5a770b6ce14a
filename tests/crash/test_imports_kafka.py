"""An import over a Kafka log whose server is killed is finished by the next one, once its lease has run out."""

from __future__ import annotations

import secrets

import pytest

from tests.support.freshet import Freshet, wait_until
from tests.support.parquet_files import write_many

DIMENSION = 32
ROWS = 100_000


@pytest.mark.kafka
@pytest.mark.timeout(1_200)
def test_import_of_a_killed_server_is_taken_over(tmp_path, private_kafka):
    """Another server, or the same one started again, goes on after the last row that is in the log."""
    private_kafka.start()
    files = tmp_path / "files"
    write_many(files / "one" / "a.parquet", ROWS, dimension=DIMENSION)
    settings = {
        "FRESHET_IMPORT_DIRS": str(files),
        "FRESHET_LOG": f"kafka://{private_kafka.bootstrap}",
        "FRESHET_KAFKA_CONTROL": f"control-{secrets.token_hex(4)}",
    }
    with Freshet(tmp_path, settings) as server:
        spec = {"serverless": {"cloud": "aws", "region": "x"}}
        server.call("POST", "/indexes", {"name": "demo", "dimension": DIMENSION, "metric": "cosine", "spec": spec})
        body = {"uri": str(files), "errorMode": {"onError": "continue"}}
        import_id = server.call("POST", "/i/demo/bulk/imports", body)["id"]

        def described():
            return server.call("GET", f"/i/demo/bulk/imports/{import_id}")

        def total():
            return server.call("POST", "/i/demo/describe_index_stats", {})["totalVectorCount"]

        wait_until(lambda: total() >= 2_000)
        assert described()["status"] == "InProgress"
        newer = {"id": "r5", "values": [7.0] * DIMENSION, "metadata": {"newer": True}}
        server.call("POST", "/i/demo/vectors/upsert", {"vectors": [newer], "namespace": "one"})
        server.kill_all()
        server.start()
        wait_until(lambda: server.is_ready() and described()["status"] == "Completed", 120)
        assert described()["recordsImported"] == ROWS
        wait_until(lambda: total() == ROWS)
        fetched = server.call("GET", "/i/demo/vectors/fetch?ids=r5&namespace=one")["vectors"]
        assert fetched["r5"]["metadata"] == {"newer": True}
        server.stop()
