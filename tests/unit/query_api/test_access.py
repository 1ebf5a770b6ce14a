"""The decision about keys, over a real catalog."""

import hmac

import pytest

import query_api.access
from producer.keys import create_key, new_key, revoke_key
from producer.log.protocol import LogRecord
from query_api.access import EVERYTHING, Access, granted, key_of_headers, leave
from schemas.errors import Forbidden, Unauthenticated
from schemas.keys import Role
from tests.unit.producer.catalogs import started, two_catalogs
from tests.unit.producer.log_fixtures import sqlite_logs


async def make(catalog, role=Role.ADMIN, **scope):
    key, kept = new_key(role, created_ms=1, **scope)
    await create_key(catalog, kept)
    return key.encode(), kept.id


@pytest.mark.asyncio
async def test_without_any_key_everything_is_open_or_nothing(tmp_path):
    """On loopback whoever comes may do everything; where others reach the server, nobody may do anything."""
    async with sqlite_logs(tmp_path) as logs, started(logs) as catalog:
        assert await Access(catalog, is_open_without_keys=True).grant(b"whatever") is EVERYTHING
        with pytest.raises(Unauthenticated):
            await Access(catalog, is_open_without_keys=False).grant(b"whatever")
        with pytest.raises(Unauthenticated, match="needed"):
            await Access(catalog, is_open_without_keys=False).grant(None)


@pytest.mark.asyncio
async def test_event_of_a_key_that_cannot_be_read_does_not_open_the_door(tmp_path):
    """There may be keys that nobody here knows; a key that is made then opens as ever."""
    async with sqlite_logs(tmp_path) as logs:
        await logs.control.append(0, [LogRecord(b"movies", b"what"), LogRecord(b"keys/0123456789ab", b"what")])
        async with started(logs) as catalog:
            access = Access(catalog, is_open_without_keys=True)
            with pytest.raises(Unauthenticated):
                await access.grant(b"whatever")
            key, _ = await make(catalog)
            assert (await access.grant(key)).role is Role.ADMIN


@pytest.mark.asyncio
async def test_key_opens_until_it_is_revoked(tmp_path):
    """The first key closes everything to those without; a revoked one opens nothing at the very next look."""
    async with sqlite_logs(tmp_path) as logs, started(logs) as catalog:
        access = Access(catalog, is_open_without_keys=True)
        admin, _ = await make(catalog)
        reader, reader_id = await make(catalog, Role.READ, indexes=("movies",), namespaces=("a",))
        grant = await access.grant(reader)
        assert (grant.role, grant.indexes, grant.namespaces) == (Role.READ, {"movies"}, {"a"})
        assert (await access.grant(admin)).role is Role.ADMIN
        await revoke_key(catalog, reader_id)
        with pytest.raises(Unauthenticated):
            await access.grant(reader)
        with pytest.raises(Unauthenticated):
            await access.grant(None)


@pytest.mark.asyncio
async def test_key_made_by_another_process_a_moment_ago_opens_at_once(tmp_path):
    """A key that is not known yet makes the catalog read on before it is refused."""
    async with two_catalogs(tmp_path) as (catalog, other):
        access = Access(other, is_open_without_keys=False)
        for _ in range(20):
            key, _ = await make(catalog)
            assert (await access.grant(key)).role is Role.ADMIN


@pytest.mark.asyncio
async def test_odd_keys_are_wrong_keys(tmp_path):
    """Empty, with a colon, not ASCII, very long, nearly right: Unauthenticated, and the key is not in the message."""
    async with sqlite_logs(tmp_path) as logs, started(logs) as catalog:
        access = Access(catalog, is_open_without_keys=True)
        right, key_id = await make(catalog)
        last = b"0" if right[-1:] != b"0" else b"1"
        nearly = [right[:-1], right + b"0", right[:-1] + last, right.upper(), b" " + right, right.replace(b"_", b":")]
        invented = f"fsk_{'0' * 12}_{'0' * 64}".encode()
        for key in (
            b"",
            b":",
            b"a:b",
            "schlüssel".encode(),
            b"\xff" * 81,
            b"x" * 60_000,
            key_id.encode(),
            invented,
            *nearly,
        ):
            with pytest.raises(Unauthenticated) as refused:
                await access.grant(key)
            assert not key or key.decode("latin-1") not in str(refused.value) or key == b":"


@pytest.mark.asyncio
async def test_digests_are_compared_in_constant_time_whether_the_id_is_known_or_not(tmp_path, monkeypatch):
    """`hmac.compare_digest` decides, and it is asked also for an id that nobody has."""
    compared = []

    def watched(one, other):
        compared.append((one, other))
        return hmac_compare(one, other)

    hmac_compare = hmac.compare_digest
    monkeypatch.setattr(query_api.access.hmac, "compare_digest", watched)
    async with sqlite_logs(tmp_path) as logs, started(logs) as catalog:
        access = Access(catalog, is_open_without_keys=True)
        key, key_id = await make(catalog)
        assert access.known(key) is not None
        assert compared[-1][0] == compared[-1][1]
        wrong = key[:-64] + b"0" * 64
        assert access.known(wrong) is None
        assert access.known(wrong.replace(key_id.encode(), b"f" * 12)) is None
        assert len(compared) == 3
        assert all(len(one) == len(other) == 32 for one, other in compared)


def test_key_comes_in_either_header():
    """`Api-Key` as Pinecone's clients send it, `Authorization: Bearer` as tools do; the former wins."""
    assert key_of_headers({}) is None
    assert key_of_headers({b"authorization": b"Basic eA=="}) is None
    assert key_of_headers({b"authorization": b"bEARER  k "}) == b"k"
    assert key_of_headers({b"api-key": b"a", b"authorization": b"Bearer b"}) == b"a"
    assert key_of_headers({b"api-key": b""}) == b""


@pytest.mark.asyncio
async def test_grant_says_what_it_does_not_reach(tmp_path):
    """Role, index, namespace: each missing right is Forbidden with the id of the key."""
    async with sqlite_logs(tmp_path) as logs, started(logs) as catalog:
        access = Access(catalog, is_open_without_keys=True)
        await make(catalog)
        key, key_id = await make(catalog, Role.WRITE, indexes=("movies",), namespaces=("a",))
        grant = await access.grant(key)
        for refused in (
            lambda: grant.check_role(Role.ADMIN),
            lambda: grant.check_index("others"),
            lambda: grant.check_index(None),
            lambda: grant.check_namespace("b"),
            grant.check_whole_index,
            grant.check_unscoped,
        ):
            with pytest.raises(Forbidden, match=key_id):
                refused()
        grant.check_role(Role.READ)
        grant.check_index("movies")
        grant.check_namespace("a")
        leave(grant)
        assert granted() is grant
