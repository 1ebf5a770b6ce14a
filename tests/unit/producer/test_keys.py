import re

import pytest

from producer.keys import KeyRing, create_key, digest_of, id_of, new_key, revoke_key
from schemas.errors import AlreadyExists, Forbidden, InvalidRequest, NotFound
from schemas.key_events import CreateKeyEvent, RevokeKeyEvent
from schemas.keys import ApiKey, Role, check_key, check_key_id, parse_role
from tests.unit.producer.catalogs import started, two_catalogs
from tests.unit.producer.log_fixtures import sqlite_logs


def made(role=Role.ADMIN, **scope):
    return new_key(role, created_ms=1_700_000_000_000, **scope)


def test_key_is_random_and_names_its_id():
    """A key reads `fsk_<id>_<secret>` with 256 random bits; what is kept of it is its digest."""
    key, kept = made()
    other, _ = made()
    assert key != other
    assert re.fullmatch(r"fsk_[0-9a-f]{12}_[0-9a-f]{64}", key)
    assert id_of(key.encode()) == kept.id == key.split("_")[1]
    assert kept.digest == digest_of(key.encode())
    assert key.split("_")[2] not in repr(kept)


@pytest.mark.parametrize(
    "key", [b"", b"fsk_", b"any", b"a:b", "fsk_é".encode(), b"x" * 81, b"fsk_" + b"0" * 77, b"fsk_" * 10_000]
)
def test_what_has_not_the_form_of_a_key_has_no_id(key):
    """Empty, foreign, with a colon, not ASCII, very long: none of them is looked up."""
    assert id_of(key) is None


def test_ring_follows_its_events():
    """A key opens from its event on and opens nothing after it was revoked; its id is never used again."""
    ring = KeyRing()
    _, admin = made()
    _, reader = made(Role.READ, indexes=("movies",), namespaces=("", "a", "a"))
    assert reader.namespaces == ("__default__", "a")
    assert ring.apply(CreateKeyEvent(admin)) == admin
    assert ring.apply(CreateKeyEvent(reader)) == reader
    assert list(ring.living) == [admin.id, reader.id]
    assert isinstance(ring.apply(CreateKeyEvent(reader)), AlreadyExists)
    assert ring.apply(RevokeKeyEvent(reader.id)) == reader
    assert list(ring.living) == [admin.id]
    assert isinstance(ring.apply(RevokeKeyEvent(reader.id)), NotFound)
    assert isinstance(ring.apply(CreateKeyEvent(reader)), AlreadyExists)


@pytest.mark.parametrize("first", [made(Role.READ)[1], made(Role.WRITE)[1], made(Role.ADMIN, indexes=("a",))[1]])
def test_first_key_that_could_not_make_others_is_refused(first):
    """From the first key on every request needs one, so the first one may do everything."""
    ring = KeyRing()
    assert isinstance(ring.apply(CreateKeyEvent(first)), Forbidden)
    assert not ring.living


def test_of_two_revocations_of_the_two_last_admins_one_is_refused():
    """There is always a key that can make others, whatever the order of events."""
    ring = KeyRing()
    keys = [made()[1], made()[1], made(Role.ADMIN, indexes=("a",))[1]]
    for key in keys:
        ring.apply(CreateKeyEvent(key))
    assert ring.apply(RevokeKeyEvent(keys[0].id)) == keys[0]
    assert isinstance(ring.apply(RevokeKeyEvent(keys[1].id)), Forbidden)
    assert keys[1].id in ring.living


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": "0123456789AB"}, "12 characters"),
        ({"id": ""}, "12 characters"),
        ({"digest": b"short"}, "digest of a key has 32 bytes"),
        ({"indexes": ("Movies",)}, "alphanumeric character"),
        ({"indexes": tuple(f"i{n}" for n in range(101))}, "100 indexes"),
        ({"namespaces": ("é",)}, "ASCII"),
        ({"namespaces": ("",)}, "__default__"),
        ({"label": "a\nb"}, "printable"),
        ({"label": "x" * 121}, "120 printable"),
        ({"role": Role.ADMIN, "namespaces": ("a",)}, "cannot be scoped to namespaces"),
        ({"created_ms": 10**15}, "made at"),
    ],
)
def test_key_that_cannot_be_is_refused(change, reason):
    """The same rules hold for a call and for a foreign record on the control log."""
    fields = {"id": "0123456789ab", "digest": bytes(32), "role": Role.READ, **change}
    with pytest.raises(InvalidRequest, match=reason):
        check_key(ApiKey(**fields))


def test_a_whole_key_in_place_of_an_id_is_not_repeated():
    """Whoever mixes the two up does not find the key in an error message."""
    key, _ = made()
    with pytest.raises(InvalidRequest) as refused:
        check_key_id(key)
    assert key not in str(refused.value)


def test_roles_are_ordered_and_spelled():
    """Admin > write > read."""
    assert Role.ADMIN > Role.WRITE > Role.READ
    assert [parse_role(role.word) for role in Role] == list(Role)
    with pytest.raises(InvalidRequest, match="read, write, admin"):
        parse_role("root")


@pytest.mark.asyncio
async def test_key_is_known_to_every_process_and_after_a_restart(tmp_path):
    """What one process makes and revokes, others see by reading the control log."""
    async with two_catalogs(tmp_path) as (catalog, other):
        _, admin = made()
        _, reader = made(Role.READ, indexes=("movies",), label="ünï")
        version = other.version
        await create_key(catalog, admin)
        assert await other.changed(version) > version
        await create_key(other, reader)
        await catalog.refresh()
        assert dict(catalog.keys) == dict(other.keys) == {admin.id: admin, reader.id: reader}
        assert await revoke_key(catalog, reader.id) == reader
        await other.refresh()
        assert dict(other.keys) == {admin.id: admin}
    async with sqlite_logs(tmp_path) as logs, started(logs) as catalog:
        assert dict(catalog.keys) == {admin.id: admin}


@pytest.mark.asyncio
async def test_changes_that_cannot_be_append_nothing(tmp_path):
    """A refused creation or revocation leaves no event behind."""
    async with sqlite_logs(tmp_path) as logs, started(logs) as catalog:
        with pytest.raises(Forbidden, match="first key must have the role admin"):
            await create_key(catalog, made(Role.WRITE)[1])
        with pytest.raises(NotFound, match="no key 0123456789ab"):
            await revoke_key(catalog, "0123456789ab")
        assert await logs.control.ends() == [0]
        _, admin = made()
        await create_key(catalog, admin)
        with pytest.raises(Forbidden, match="last key with the role admin"):
            await revoke_key(catalog, admin.id)
        assert dict(catalog.keys) == {admin.id: admin}


@pytest.mark.asyncio
async def test_log_never_holds_a_key(tmp_path):
    """Neither the key nor its secret is anywhere in the files of the log; the digest is."""
    async with sqlite_logs(tmp_path) as logs, started(logs) as catalog:
        key, kept = made()
        await create_key(catalog, kept)
        written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert kept.digest in written
    assert key.encode() not in written
    assert key.split("_")[2].encode() not in written
    assert bytes.fromhex(key.split("_")[2]) not in written
