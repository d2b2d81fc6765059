"""Removing stores and what killed processes left: nothing that looks whole stays behind, and nothing of others goes."""

import os
import shutil
from contextlib import suppress

import pytest
from campaign import times
from steps import Cut, Fault, cut, watched
from toy_store import ARRAYS, build, open_writer, publish, read_everything
from trees import tree

from tosca_cache.errors import StoreError
from tosca_cache.store import Part, StoreBusy, list_stores, open_store, sweep_up
from tosca_cache.store.catalogue import remove_store


def begin(path, shards=1):
    """An unfinished store, as a killed writer leaves it, but for its lock."""
    with open_writer(path) as writer:
        for shard in writer.pending()[:shards]:
            publish(writer, shard, ARRAYS)
    return path.with_name(f"{path.name}.partial")


def test_a_store_goes_whole_by_either_name_damaged_or_not(tmp_path, toy):
    store = build(tmp_path / "s")
    size = sum(len(data) for data in tree(store.path).values()) + (store.path / "provenance.json").stat().st_size
    assert remove_store(store.path) == size
    for named in ("s", "s.partial"):
        begin(tmp_path / "s")
        assert remove_store(tmp_path / named) > 0
    for harm in ("manifest.json", "train/features/c.0.0.0", "zarr.json"):
        shutil.copytree(toy.path, tmp_path / "s")
        (tmp_path / "s" / harm).write_bytes(b"?")
        remove_store(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_it_goes_with_all_that_killed_processes_left_of_it_and_nothing_else(tmp_path, toy):
    for name in ("other", "s", "s.partial"):
        shutil.copytree(toy.path, tmp_path / name)
    remove_store(tmp_path / "s.partial")  # what was built beside a finished store goes alone
    read_everything(open_store(tmp_path / "s"))
    shutil.rmtree(tmp_path / "s")
    for name in (".s.compact", ".s.fetching", ".s.removed"):
        shutil.copytree(toy.path, tmp_path / name)
    for name in (".s.lock", ".s.part-2-of-3.lock", ".s.deciding.lock"):
        (tmp_path / name).write_text('{"pid": 999999999, "host": "elsewhere", "since": "2020"}')
    assert remove_store(tmp_path / "s") > 3 * toy.manifest.size
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_what_is_no_store_stays(tmp_path, toy):
    for name, files in {"empty": (), "web": ("manifest.json", "index.html"), "text": ("train",)}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("mine")
    (tmp_path / "link").symlink_to(toy.path)
    before = sorted(tmp_path.rglob("*"))
    for name, words in {"empty": "no feature store", "web": "index.html", "text": "no feature store"}.items():
        with pytest.raises(StoreError, match=words):
            remove_store(tmp_path / name)
    with pytest.raises(StoreError, match="link"):
        remove_store(tmp_path / "link")
    with pytest.raises(StoreError, match="no feature store here"):
        remove_store(tmp_path / "nothing")
    assert sorted(tmp_path.rglob("*")) == before
    read_everything(toy)


@pytest.mark.parametrize("part", [None, Part(3, 2)])
def test_what_is_being_written_stays_and_the_writer_is_named(tmp_path, part):
    with open_writer(tmp_path / "s", part=part) as writer:
        publish(writer, writer.pending()[0], ARRAYS)
        with pytest.raises(StoreBusy, match=f"process {os.getpid()} on"):
            remove_store(tmp_path / "s")
        publish(writer, writer.pending()[0], ARRAYS)


@pytest.mark.campaign
def test_killed_at_any_step_it_leaves_no_store_that_looks_whole(tmp_path, toy):
    counted = Fault()
    shutil.copytree(toy.path, tmp_path / "root" / "s")
    with watched(tmp_path / "root", counted):
        remove_store(tmp_path / "root" / "s")
    steps = len(counted.steps)
    for step in times((*range(0, 12, 2), *range(12, steps, 18), steps - 1), range(steps)):
        shutil.copytree(toy.path, tmp_path / "root" / "s")
        with watched(tmp_path / "root", cut(step)), pytest.raises(Cut):
            remove_store(tmp_path / "root" / "s")
        if (tmp_path / "root" / "s").exists():
            assert tree(tmp_path / "root" / "s") == tree(toy.path)
            remove_store(tmp_path / "root" / "s")
        else:
            assert list_stores(tmp_path / "root") == []
            with suppress(StoreError):  # if nothing is left
                remove_store(tmp_path / "root" / "s")
        left = [path.name for path in (tmp_path / "root").iterdir()]
        assert all(name.endswith("lock") for name in left), (step, left)


def test_a_finished_store_is_swept_around(tmp_path, toy):
    for name in ("s", "s.partial", ".s.compact"):
        shutil.copytree(toy.path, tmp_path / name)
    with open_writer(tmp_path / "other"):
        sweep_up(tmp_path / "s")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.partial", "s"]
    begin(tmp_path / "t")
    sweep_up(tmp_path / "t")
    assert (tmp_path / "t.partial").exists()


def test_room_is_made_on_a_full_disk(mounted):
    folder = mounted(f"size={150 * os.sysconf('SC_PAGE_SIZE')}")
    build(folder / "s")
    with (folder / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
        while True:
            file.write(bytes(4096))
    remove_store(folder / "s")
    assert [path.name for path in folder.iterdir()] == ["ballast"]
