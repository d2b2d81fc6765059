"""What is written to a remote root is what a local one has, on every machine, whatever happens on the way."""

import itertools
import os
import random

import numpy as np
import pytest
from campaign import times
from toy_store import BAD, build, build_part, open_writer, publish, read_everything, toy_arrays, toy_spec, tree

from tosca_cache.errors import StoreError
from tosca_cache.store import Part, StoreWriter, list_stores, open_store
from tosca_cache.store.remote import lease, local_path, local_root, mirror_of, settle
from tosca_cache.store.remote.access import Access

SMALL_BAD = [("train", 7)]
SMALL = {"rows": {"train": 9, "test": 4}, "shard_rows": 5}


class PowerLossError(BaseException):
    """Not an `Exception`: nothing in the product may catch it and tidy up."""


def states(address):
    return {store.path.name: (store.state, store.done_rows) for store in list_stores(address)}


@pytest.mark.parametrize(("root", "bad"), [("memory", BAD), ("s3", [])])
def test_a_remote_store_is_the_local_one_object_by_object(root, bad, request, objects, machine, tmp_path):
    address = request.getfixturevalue(root)
    how = SMALL if root == "s3" else {}
    expected = tree(build(tmp_path / "plain" / "s", bad=bad, **how).path)
    store = build(local_path(f"{address}/s"), bad=bad, **how)
    assert tree(store.path) == expected
    far = {key.removeprefix("s/"): data for key, data in objects(address).items()}
    assert far.pop("provenance.json") == (store.path / "provenance.json").read_bytes()
    assert far == expected
    assert states(address) == {"s": ("finished", sum(map(store.rows, ("train", "test"))))}
    machine("second")
    fetched = open_store(f"{address}/s")
    assert fetched.path != store.path
    assert tree(fetched.path) == expected
    assert fetched.provenance == store.provenance
    read_everything(fetched)
    assert not [path.name for path in fetched.path.parent.glob(".s*")]
    if root == "s3":
        look_with_plain_zarr(f"{address}/s", fetched)


def look_with_plain_zarr(address, store):
    """What anybody sees who has zarr and s3fs, but not this project."""
    import zarr

    options = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}
    group = zarr.open_group(address, mode="r", storage_options=options)
    for split in ("train", "test"):
        np.testing.assert_array_equal(group[f"{split}/features"][:], store.features(split))
        np.testing.assert_array_equal(group[f"{split}/labels"][:], store.labels(split))
        assert tuple(group[f"{split}/paths"][:]) == store.paths(split)


def test_another_machine_goes_on_from_what_is_remote(memory, skipping, machine, objects):
    arrays = {split: toy_arrays(split) for split in ("train", "test")}
    with open_writer(local_path(f"{memory}/s")) as writer:
        for shard in writer.pending()[:3]:
            publish(writer, shard, arrays, BAD)
        rows = writer.done_rows
    assert not any(key.endswith("lock") for key in objects(memory))
    machine("second")
    assert states(memory) == {"s.partial": ("unfinished", rows)}
    with pytest.raises(StoreError, match="unfinished"):
        open_store(f"{memory}/s")
    path = local_path(f"{memory}/s")
    assert StoreWriter.recorded_numerics(path) == {"batch_size": 4, "device": "cpu"}
    with open_writer(path) as writer:
        assert len(writer.pending()) == 5
        assert writer.done_rows == rows
    assert tree(build(path, bad=BAD).path) == tree(skipping.path)


def test_the_same_machine_uploads_what_is_missing_there(memory, toy, objects, machine, monkeypatch):
    """A network that breaks costs nothing that is here."""
    arrays = {split: toy_arrays(split) for split in ("train", "test")}
    path = local_path(f"{memory}/s")
    with monkeypatch.context() as patch, pytest.raises(StoreError, match="no network"):
        writer = open_writer(path)
        patch.setattr(Access, "write", broken)
        with writer:
            for shard in writer.pending()[:4]:
                publish(writer, shard, arrays)
    assert not any("/done/" in key for key in objects(memory))
    assert states(memory)["s.partial"][1] > 0
    with open_writer(path) as writer:
        begun = writer.pending()
    assert len(begun) < 8
    assert sum("/done/" in key for key in objects(memory)) == 8 - len(begun)
    machine("second")
    assert tree(build(local_path(f"{memory}/s")).path) == tree(toy.path)


def broken(*_):
    raise StoreError("no network")


def pulling_the_plug(patch, after):
    """Lets `after` requests that change something pass, then nothing more."""
    calls = itertools.count()

    def guard(function):
        def guarded(self, *arguments):
            if next(calls) >= after:
                raise PowerLossError
            return function(self, *arguments)

        return guarded

    for name in ("write", "create", "copy", "remove"):
        patch.setattr(Access, name, guard(getattr(Access, name)))
    return calls


def extract(address, bad):
    """What `tosca extract` does: (the finished store, how many shards had to be computed)."""
    path = settle(local_path(f"{address}/s"))
    if path.exists():
        return open_store(path), 0
    arrays = {split: toy_arrays(split, SMALL["rows"]) for split in ("train", "test")}
    with open_writer(path, toy_spec(SMALL["rows"]), **SMALL) as writer:
        pending = writer.pending()
        for shard in pending:
            publish(writer, shard, arrays, bad)
        return writer.finish({}), len(pending)


@pytest.mark.campaign
@pytest.mark.parametrize("same", [False, True], ids=["elsewhere", "here"])
@pytest.mark.parametrize("bad", [[], SMALL_BAD], ids=["clean", "skipped"])
def test_a_crash_at_any_request_loses_nothing_that_is_listed(
    bad, same, memory, objects, machine, tmp_path, monkeypatch
):
    expected = tree(build(tmp_path / "whole", **SMALL, bad=bad).path)
    with monkeypatch.context() as patch:
        patch.setattr(lease, "SETTLED", 60.0)  # renewals are not counted
        calls = pulling_the_plug(patch, 10**9)
        extract(f"{memory}/counted", bad)
        steps = next(calls)
    generator = random.Random(len(bad) + 2 * same)
    few = {generator.randrange(2, steps - 35), steps - generator.choice((3, 20, 35))}
    for step in times(sorted(few), range(2, steps)):
        address = f"{memory}/{step}"
        machine(f"a{step}")
        with monkeypatch.context() as patch:
            patch.setattr(lease, "SETTLED", 60.0)
            pulling_the_plug(patch, step)
            with pytest.raises(PowerLossError):
                extract(address, bad)
        there = objects(address)
        machine(f"b{step}")
        if "s/manifest.json" in there:
            assert tree(open_store(f"{address}/s").path) == expected, f"finished before it was complete, step {step}"
        else:
            assert "finished" not in dict(states(address).values()), f"step {step}"
        machine(f"{'a' if same else 'c'}{step}")
        monkeypatch.setattr(lease, "STALE", -1.0)
        store, computed = extract(address, bad)
        assert tree(store.path) == expected, f"step {step} of {steps}"
        assert computed <= 3 - sum("/done/" in key for key in there), f"step {step} of {steps}"
        left = {key.removeprefix("s/"): data for key, data in objects(address).items() if "provenance" not in key}
        assert left == expected, f"step {step} of {steps}"


def test_parts_on_two_machines_are_joined_on_a_third(memory, skipping, machine):
    for index in (2, 1):
        machine(f"machine{index}")
        with open_writer(local_path(f"{memory}/s"), part=Part(2, index)) as writer:
            writer.note({"images": index})
        build_part(local_path(f"{memory}/s"), Part(2, index), bad=BAD)
    machine("third")
    with open_writer(local_path(f"{memory}/s")) as writer:
        assert writer.pending() == []
        assert writer.notes == {"1/2": {"images": 1}, "2/2": {"images": 2}}
        assert tree(writer.finish({}).path) == tree(skipping.path)


def test_a_restart_throws_the_remote_one_away_too(memory, machine, objects):
    arrays = {split: toy_arrays(split) for split in ("train", "test")}
    with open_writer(local_path(f"{memory}/s")) as writer:
        publish(writer, writer.pending()[0], arrays)
    machine("second")
    other = {"spec": toy_spec(precision="bf16")}
    with pytest.raises(StoreError, match="precision"):
        open_writer(local_path(f"{memory}/s"), **other)
    open_writer(local_path(f"{memory}/s"), **other, restart=True).close()
    assert set(objects(memory)) == {"s/plan.json"}
    machine("first")
    with pytest.raises(StoreError, match="begun with other settings than the one here"):
        open_writer(local_path(f"{memory}/s"))


def test_a_finished_store_is_never_written_again(memory, machine):
    build(local_path(f"{memory}/s"))
    for name in ("first", "second"):
        machine(name)
        with pytest.raises(StoreError, match="finished"):
            open_writer(local_path(f"{memory}/s"), restart=True)


def test_done_objects_without_a_plan_are_believed_by_nobody(memory, machine, objects):
    arrays = {split: toy_arrays(split) for split in ("train", "test")}
    with open_writer(local_path(f"{memory}/s")) as writer:
        publish(writer, writer.pending()[0], arrays)
    Access(mirror_of(local_root(memory))).remove("s/plan.json")
    machine("second")
    with open_writer(local_path(f"{memory}/s"), numerics={"batch_size": 5}) as writer:
        assert len(writer.pending()) == 8
    assert not any("/done/" in key for key in objects(memory))


def test_a_shard_that_was_damaged_there_is_computed_again(memory, toy, machine, objects):
    arrays = {split: toy_arrays(split) for split in ("train", "test")}
    with open_writer(local_path(f"{memory}/s")) as writer:
        for shard in writer.pending()[:2]:
            publish(writer, shard, arrays)
    key = "s/train/labels/c.1"
    far = Access(mirror_of(local_root(memory)))
    far.write(key, flipped(objects(memory)[key]))
    machine("second")
    with pytest.warns(UserWarning, match="Shard 1 of split train is not as it was uploaded"):
        store = build(local_path(f"{memory}/s"))
    assert tree(store.path) == tree(toy.path)


def flipped(data):
    return bytes([data[0] ^ 1]) + data[1:]
