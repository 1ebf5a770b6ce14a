"""What every snapshot store keeps to, as tests: a store's test module inherits the class and supplies `store`."""

from __future__ import annotations

import hashlib
import pickle
import threading

import pytest

from indexer.snapshots.store import Store
from schemas.errors import AlreadyExists, CorruptData
from schemas.manifest import ObjectRef

__all__ = ["StoreContract"]

_LARGE = 3 * 1024 * 1024


def object_name(kind: str = "delta") -> str:
    return f"films.L/0/objects/{'0' * 31}1.{kind}"


def numbered_manifest(version: int) -> str:
    return f"films.L/0/manifests/{version:020d}"


class StoreContract:
    """The specification; `store` is empty."""

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError

    def test_object_is_read_back_with_its_size_and_digest(self, store):
        """What `put` returns is enough to open and verify the object."""
        ref = store.put(object_name(), [b"a", memoryview(b"bc"), b""])
        assert ref == ObjectRef(object_name(), 3, hashlib.sha256(b"abc").digest())
        assert store.read(ref.name) == b"abc"
        assert bytes(store.open(ref, verify=True)) == b"abc"

    def test_large_object_is_mapped_and_verified(self, store):
        """A large object is opened without reading it into memory, and is the same bytes."""
        chunk = bytes(range(256)) * 4096
        ref = store.put(object_name(), [chunk] * (_LARGE // len(chunk)))
        view = store.open(ref, verify=True)
        assert len(view) == ref.size_bytes == _LARGE
        assert view[-256:] == bytes(range(256))
        assert view.readonly

    def test_name_that_is_taken_stays_what_it_was(self, store):
        """Objects are immutable: nobody can write one twice."""
        store.create(numbered_manifest(1), b"first")
        ref = store.put(object_name(), [b"first"])
        for write in (store.create, lambda name, data: store.put(name, [data])):
            for name in (numbered_manifest(1), ref.name):
                with pytest.raises(AlreadyExists):
                    write(name, b"second")
                assert store.read(name) == b"first"

    def test_of_many_that_create_one_name_at_once_exactly_one_wins(self, store):
        """The creation of a manifest is the commit: its race has one winner, whose bytes are there."""
        for version in range(1, 6):
            won: list[int] = []
            barrier = threading.Barrier(8)

            def create(
                number: int,
                version: int = version,
                won: list[int] = won,
                barrier: threading.Barrier = barrier,
            ) -> None:
                barrier.wait()
                try:
                    store.create(numbered_manifest(version), b"%d" % number * 1000)
                except AlreadyExists:
                    return
                won.append(number)

            threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(won) == 1
            assert store.read(numbered_manifest(version)) == b"%d" % won[0] * 1000

    def test_failed_write_leaves_nothing_under_its_name(self, store):
        """An object appears whole or not at all, and nothing of it is listed."""

        def chunks():
            yield b"half"
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.put(object_name(), chunks())
        assert not store.exists(object_name())
        assert store.list("films.L/0/objects") == []
        assert store.put(object_name(), [b"whole"]).size_bytes == 5

    def test_damage_is_found_by_size_without_and_by_digest_with_verification(self, store):
        """A wrong size is always found; a wrong byte where verification is asked for."""
        ref = store.put(object_name(), [b"abc"])
        with pytest.raises(CorruptData) as caught:
            store.open(ObjectRef(ref.name, 4, ref.sha256), verify=False)
        assert caught.value.facts["name"] == ref.name
        with pytest.raises(CorruptData) as caught:
            store.open(ObjectRef(ref.name, 3, b"\0" * 32), verify=True)
        assert caught.value.facts["name"] == ref.name
        assert bytes(store.open(ObjectRef(ref.name, 3, b"\0" * 32), verify=False)) == b"abc"

    def test_missing_object_is_a_file_not_found(self, store):
        """A follower tells an object that was collected from one that is damaged."""
        ref = ObjectRef(object_name(), 3, b"\0" * 32)
        for read in (
            lambda: store.read(ref.name),
            lambda: store.open(ref, verify=True),
            lambda: store.sync([ref.name]),
        ):
            with pytest.raises(FileNotFoundError):
                read()
        assert not store.exists(ref.name)
        assert store.age_seconds(ref.name) is None
        assert store.list("films.L/0/objects") == []

    def test_listing_is_sorted_and_of_one_level(self, store):
        """Names sort by version, and a listing of a partition's folder says nothing about its neighbours."""
        for version in (10, 2, 1):
            store.create(numbered_manifest(version), b"")
        store.create(f"films.L/1/manifests/{3:020d}", b"")
        store.put(object_name(), [b""])
        assert store.list("films.L/0/manifests") == [numbered_manifest(number) for number in (1, 2, 10)]

    def test_replace_puts_new_bytes_in_place_of_old_ones(self, store):
        """The checkpoint marker is the one name that changes."""
        for data in (b"first", b"second, longer", b""):
            store.replace("films.L/0/marker", data)
            assert store.read("films.L/0/marker") == data

    def test_delete_takes_what_is_there_and_does_not_mind_what_is_not(self, store):
        """Two collectors may delete the same garbage."""
        refs = [store.put(object_name(f"k{number}"), [b"x"]) for number in range(3)]
        store.delete([refs[0].name, "films.L/0/objects/none", refs[2].name])
        assert store.list("films.L/0/objects") == [refs[1].name]
        store.delete([refs[0].name])

    def test_deleting_an_index_takes_all_of_it_and_nothing_else(self, store):
        """A recreated index has another id, so nothing of the old one is ever needed."""
        store.create(numbered_manifest(1), b"")
        store.put(object_name(), [b""])
        store.create("other.L/0/manifests/1", b"")
        store.delete_prefix("films.L")
        store.delete_prefix("films.L")
        assert store.list("films.L/0/manifests") == store.list("films.L/0/objects") == []
        assert store.list("other.L/0/manifests") == ["other.L/0/manifests/1"]
        assert store.put(object_name(), [b"again"]).size_bytes == 5

    def test_quarantined_object_is_gone_and_a_quarantined_manifest_keeps_its_name(self, store):
        """What is damaged is kept for analysis; the name of a manifest is never free again."""
        ref = store.put(object_name(), [b"bad"])
        store.create(numbered_manifest(1), b"bad too")
        for _ in range(2):
            store.quarantine(ref.name)
            store.quarantine(numbered_manifest(1))
        assert not store.exists(ref.name)
        with pytest.raises(AlreadyExists):
            store.create(numbered_manifest(1), b"free?")

    def test_age_grows_from_nothing(self, store):
        """Ages are told by the store's own clock, and a new object is young."""
        ref = store.put(object_name(), [b"x"])
        age = store.age_seconds(ref.name)
        assert age is not None
        assert -1 < age < 60

    def test_sync_of_what_is_there_keeps_it(self, store):
        """Syncing changes nothing that can be seen."""
        ref = store.put(object_name(), [b"x"])
        store.create(numbered_manifest(1), b"m")
        store.sync([ref.name, numbered_manifest(1)])
        store.sync([])
        assert store.read(ref.name) == b"x"

    def test_store_can_be_sent_to_another_process(self, store):
        """Graph builds run elsewhere: they get the store, and see the same objects."""
        ref = store.put(object_name(), [b"x"])
        assert pickle.loads(pickle.dumps(store)).read(ref.name) == b"x"
