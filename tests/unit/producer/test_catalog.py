import asyncio
import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from producer.catalog_fold import CatalogFold
from producer.log.protocol import LogRecord
from producer.metrics import ProducerMetrics
from schemas.catalog_events import ConfigureIndexEvent, CreateIndexEvent, DeleteIndexEvent, encode_catalog
from schemas.errors import AlreadyExists, Forbidden, InvalidRequest, LogFull, NotFound
from schemas.indexes import IndexSpec
from tests.unit.producer.catalogs import spec, started, two_catalogs
from tests.unit.producer.log_fixtures import sqlite_logs

PORTS = (5081, 5082)


@pytest.mark.asyncio
async def test_created_index_is_found_with_its_port_and_survives_a_restart(tmp_path):
    """An index is what its create said, with the first port that was offered; a restart folds the same."""
    wanted = spec()
    async with sqlite_logs(tmp_path) as logs, started(logs) as catalog:
        assert await catalog.create(wanted, PORTS) == replace(wanted, port=5081)
        other = await catalog.create(spec("actors", port=9999), PORTS)
        assert other.port == 5082
        assert catalog.get("movies") == catalog.by_port(5081) == replace(wanted, port=5081)
        assert [index.name for index in catalog.list()] == ["actors", "movies"]
    async with sqlite_logs(tmp_path) as logs, started(logs) as catalog:
        assert list(catalog.list()) == [other, replace(wanted, port=5081)]
        assert catalog.by_port(5082) == other


@pytest.mark.asyncio
async def test_name_that_lives_is_not_created_again(tmp_path):
    """A second create of a living name is AlreadyExists, and appends nothing."""
    async with sqlite_logs(tmp_path) as logs, started(logs) as catalog:
        first = await catalog.create(spec(), PORTS)
        with pytest.raises(AlreadyExists, match="Resource movies already exists"):
            await catalog.create(spec(), PORTS)
        assert catalog.get("movies") == first
        assert await logs.control.ends() == [1]


@pytest.mark.asyncio
async def test_of_racing_creates_one_wins_in_every_process(tmp_path):
    """The order of the control log decides: one 201, all others 409, and all catalogs agree on which."""
    async with two_catalogs(tmp_path) as (catalog, other):
        wanted = [spec(dimension=number) for number in range(1, 9)]
        results = await asyncio.gather(
            *(catalog.create(one, PORTS) for one in wanted[:4]),
            *(other.create(one, PORTS) for one in wanted[4:]),
            return_exceptions=True,
        )
        won = [result for result in results if isinstance(result, IndexSpec)]
        lost = [result for result in results if isinstance(result, AlreadyExists)]
        assert len(won) == 1
        assert len(lost) == 7
        await catalog.refresh()
        await other.refresh()
        assert catalog.get("movies") == other.get("movies") == won[0]


async def append_as_another(path, event):
    async with sqlite_logs(path) as logs:
        await logs.control.append(0, [LogRecord(b"movies", encode_catalog(event))])


@pytest.mark.asyncio
async def test_event_that_loses_in_the_fold_is_answered_so(tmp_path):
    """A create or delete whose event comes second is refused even where it looked possible when it was asked for."""
    rival = spec()
    events = [CreateIndexEvent(rival, ()), DeleteIndexEvent("movies")]

    def overtake(name):
        if name == "catalog.before_append":
            # With an event loop of its own, as another process has.
            thread = threading.Thread(target=asyncio.run, args=(append_as_another(tmp_path, events.pop(0)),))
            thread.start()
            thread.join()

    async with sqlite_logs(tmp_path) as logs, started(logs, step=overtake) as catalog:
        with pytest.raises(AlreadyExists):
            await catalog.create(spec(), PORTS)
        assert catalog.get("movies") == rival
        with pytest.raises(NotFound):
            await catalog.delete("movies")
        assert not catalog.list()
        assert await logs.control.ends() == [4]


@pytest.mark.asyncio
async def test_deleted_index_is_gone_and_its_name_is_free(tmp_path):
    """After a delete the name is missing, its door is closed, and a new index may take the name."""
    async with sqlite_logs(tmp_path) as logs, started(logs) as catalog:
        first = await catalog.create(spec(), PORTS)
        await catalog.delete("movies")
        assert catalog.by_port(first.port) is None
        with pytest.raises(NotFound, match="Resource movies not found"):
            catalog.get("movies")
        with pytest.raises(NotFound):
            await catalog.delete("movies")
        again = await catalog.create(spec(), PORTS)
        assert again.index_id != first.index_id
        # Clients cache hosts: the old door does not lead to the new index while another is free.
        assert again.port == 5082


@pytest.mark.asyncio
async def test_impossible_index_is_refused_before_the_log(tmp_path):
    """What could not be read back is never appended."""
    async with sqlite_logs(tmp_path) as logs, started(logs) as catalog:
        with pytest.raises(InvalidRequest, match="alphanumeric character"):
            await catalog.create(spec("Movies"), PORTS)
        with pytest.raises(InvalidRequest, match="Dimension"):
            await catalog.create(spec(dimension=0), PORTS)
        assert await logs.control.ends() == [0]


@pytest.mark.asyncio
async def test_poison_on_the_control_log_is_counted_and_passed(tmp_path):
    """Records that can't be read are skipped, at the start and later, and stop nothing."""
    poison = [
        LogRecord(None, b"\xff\xff"),
        LogRecord(b"x", b""),
        LogRecord(b"x", encode_catalog(DeleteIndexEvent("a")), (("freshet-format", b"2"),)),
        LogRecord(b"x", encode_catalog(DeleteIndexEvent("a")), (("freshet-format", b"x"),)),
        LogRecord(b"x", encode_catalog(CreateIndexEvent(spec("NO"), ()))),
    ]
    registry = CollectorRegistry()
    async with sqlite_logs(tmp_path) as logs:
        await logs.control.append(0, poison)
        async with started(logs, metrics=ProducerMetrics(registry)) as catalog:
            assert registry.get_sample_value("freshet_catalog_poison_total") == 5
            await logs.control.append(0, poison)
            assert (await catalog.create(spec(), PORTS)).port == 5081
            assert registry.get_sample_value("freshet_catalog_poison_total") == 10
            assert [index.name for index in catalog.list()] == ["movies"]


@pytest.mark.asyncio
async def test_change_by_another_process_is_seen_without_being_asked(tmp_path):
    """`changed` returns when another process has created or deleted an index, and not before."""
    async with two_catalogs(tmp_path) as (catalog, other):
        seen = catalog.version
        waiting = asyncio.create_task(catalog.changed(seen))
        with pytest.raises(AlreadyExists):
            await other.create(spec(), PORTS)
            await other.create(spec(), PORTS)
        seen = await asyncio.wait_for(waiting, 10)
        assert catalog.get("movies").port == 5081
        await other.delete("movies")
        await asyncio.wait_for(catalog.changed(seen), 10)
        assert not catalog.list()
        assert await asyncio.wait_for(catalog.changed(seen), 10) == catalog.version > seen


@pytest.mark.asyncio
async def test_what_another_process_did_before_the_call_counts(tmp_path):
    """Create and delete judge by the control log as it is when they are called, not by what was folded so far."""
    async with two_catalogs(tmp_path) as (catalog, other):
        for _ in range(5):
            await catalog.create(spec(), PORTS)
            await other.delete("movies")
            made = await catalog.create(spec(), PORTS)
            await other.delete("movies")
            assert made.name == "movies"


@pytest.mark.asyncio
async def test_create_without_space_is_refused_and_makes_nothing(tmp_path):
    """Where nothing was appended the error says so, and the name stays free."""
    async with sqlite_logs(tmp_path, reserve_bytes=1 << 60) as logs, started(logs) as catalog:
        with pytest.raises(LogFull):
            await catalog.create(spec(), PORTS)
        await catalog.refresh()
        assert not catalog.list()


def test_ports_are_given_out_once_before_any_is_given_again():
    """The first port that no index ever had; else the first that no living index has; else none."""
    fold = CatalogFold()

    def create(name, *ports):
        return fold.apply(CreateIndexEvent(spec(name), ports)).port

    assert create("a", 1, 2, 3) == 1
    assert create("b", 1, 2, 3) == 2
    fold.apply(DeleteIndexEvent("a"))
    assert create("c", 1, 2, 3) == 3
    assert create("d", 1, 2, 3) == 1
    assert create("e", 1, 2, 3) == 0
    assert create("f") == 0
    fold.apply(DeleteIndexEvent("b"))
    assert create("g", 3, 2) == 2
    assert isinstance(fold.apply(CreateIndexEvent(spec("g"), (4,))), AlreadyExists)
    assert create("h", 4) == 4


NAMES = st.sampled_from(["a", "b", "c"])
EVENTS = st.lists(
    st.builds(lambda name, ports: CreateIndexEvent(spec(name), tuple(ports)), NAMES, st.lists(st.integers(1, 4)))
    | st.builds(DeleteIndexEvent, NAMES),
    max_size=30,
)


@settings(deadline=None)
@given(EVENTS)
def test_no_two_living_indexes_share_a_name_or_a_port(events):
    """Whatever the events, names and ports are unique among the living, and the doors lead to their indexes."""
    fold = CatalogFold()
    for event in events:
        living = dict(fold.indexes)
        outcome = fold.apply(event)
        name = event.name if isinstance(event, DeleteIndexEvent) else event.spec.name
        assert isinstance(outcome, IndexSpec) == ((name in living) == isinstance(event, DeleteIndexEvent))
        ports = [index.port for index in fold.indexes.values() if index.port]
        assert len(set(ports)) == len(ports)
        assert fold.by_port == {index.port: index for index in fold.indexes.values() if index.port}


@pytest.mark.asyncio
async def test_configured_index_is_seen_by_every_process_and_after_a_restart(tmp_path):
    """Tags are merged, what is not named stays; the version rises, and the port leads to the changed index."""
    async with two_catalogs(tmp_path) as (catalog, other):
        made = await catalog.create(spec(), PORTS)
        version = catalog.version
        event = ConfigureIndexEvent("movies", 0.9, "enabled", {"a": "", "c": "d"})
        changed = await catalog.configure(event)
        assert (changed.recall_target, changed.index_id, changed.port) == (0.9, made.index_id, made.port)
        assert changed.settings == b'{"tags":{"c":"d"},"deletion_protection":"enabled"}'
        assert await catalog.changed(version) > version
        assert catalog.by_port(5081) == catalog.get("movies") == changed
        await other.refresh()
        assert other.get("movies") == changed
        again = await other.configure(ConfigureIndexEvent("movies", tags={"e": "f"}))
        assert again == replace(changed, settings=b'{"tags":{"c":"d","e":"f"},"deletion_protection":"enabled"}')
    async with sqlite_logs(tmp_path) as logs, started(logs) as catalog:
        assert catalog.get("movies") == again


@pytest.mark.asyncio
async def test_racing_configures_lose_nothing(tmp_path):
    """Each merges over what came before it in the control log, in every process."""
    async with two_catalogs(tmp_path) as (catalog, other):
        await catalog.create(spec(settings=b"{}"), PORTS)
        await other.refresh()
        events = [ConfigureIndexEvent("movies", tags={f"k{n}": "v"}) for n in range(12)]
        await asyncio.gather(*((catalog, other)[n % 2].configure(event) for n, event in enumerate(events)))
        await catalog.refresh()
        await other.refresh()
        assert catalog.get("movies") == other.get("movies")
        assert all(f'"k{n}":"v"'.encode() in catalog.get("movies").settings for n in range(12))
        results = await asyncio.gather(
            *(catalog.configure(ConfigureIndexEvent("movies", tags={f"x{n}": "v"})) for n in range(12)),
            return_exceptions=True,
        )
        refused = [one for one in results if isinstance(one, InvalidRequest)]
        assert len(refused) == 4
        assert "20 tags" in refused[0].message


@pytest.mark.asyncio
async def test_protection_decides_in_the_order_of_the_log(tmp_path):
    """A delete that was on its way when the index became protected is refused by the fold, everywhere."""
    async with two_catalogs(tmp_path) as (catalog, other):
        made = await catalog.create(spec(), PORTS)
        protecting = encode_catalog(ConfigureIndexEvent("movies", deletion_protection="enabled"))
        deleting = encode_catalog(DeleteIndexEvent("movies"))
        await catalog._logs.control.append(0, [LogRecord(b"movies", value) for value in (protecting, deleting)])
        for each in (catalog, other):
            await each.refresh()
            assert each.get("movies").index_id == made.index_id
            with pytest.raises(Forbidden, match="Deletion protection is enabled"):
                await each.delete("movies")
        await other.configure(ConfigureIndexEvent("movies", deletion_protection="disabled"))
        await other.delete("movies")
        await catalog.refresh()
        assert catalog.list() == []


@pytest.mark.asyncio
async def test_configure_of_what_cannot_be_appends_nothing(tmp_path):
    """A missing index, a target out of range and too many tags are known beforehand."""
    async with sqlite_logs(tmp_path) as logs, started(logs) as catalog:
        await catalog.create(spec(), PORTS)
        with pytest.raises(NotFound, match="Resource actors not found"):
            await catalog.configure(ConfigureIndexEvent("actors"))
        with pytest.raises(InvalidRequest, match="recall_target"):
            await catalog.configure(ConfigureIndexEvent("movies", float("nan")))
        with pytest.raises(InvalidRequest, match="20 tags"):
            await catalog.configure(ConfigureIndexEvent("movies", tags={str(n): "v" for n in range(20)}))
        assert await logs.control.ends() == [1]
