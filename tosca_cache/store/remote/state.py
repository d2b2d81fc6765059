"""What there is of a store at a remote root, as anybody sees it who only looks.

NAME/manifest.json      it is finished; without this it is none, whatever else is there
NAME/plan.json          it is being built, or left over from that
NAME/done/SPLIT-INDEX.json   a shard whose five objects are there: their sizes and SHA-256, and its skipped rows
NAME/sealed/...         a store with skipped rows, whole and without them, on its way to its place; see finish.py
.NAME.lock              see lease.py
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tosca_cache.errors import StoreError
from tosca_cache.files import Limit
from tosca_cache.store.disk import ObjectRecord, storage, write_whole
from tosca_cache.store.journal import DoneShard
from tosca_cache.store.layout import ARRAYS, SPLITS, Shard, SplitLayout, object_key
from tosca_cache.store.manifest import MANIFEST, PLAN, Manifest, Plan, load_manifest, load_plan
from tosca_cache.store.remote.access import QUICK, Access, in_threads
from tosca_cache.store.remote.mirror import Mirror, mirror_of
from tosca_cache.store.remote.url import STORE_NAME

DONE, SEALED = "done", "sealed"
MAX_DONE_BYTES = 64 << 20
_DONE_NAME = re.compile(r"(train|test)-([0-9]{1,9})\.json")


@dataclass(frozen=True)
class Seen:
    """A store at a remote root. path: where it is, or would be, in the mirror, `.partial` if it is unfinished.

    copy: a folder with its manifest or plan as it was last seen. done: of an unfinished one, the shards that are there.
    """

    path: Path
    copy: Path
    finished: bool
    done: frozenset[Shard] = frozenset()


def look(root: Path) -> list[Seen] | None:
    """Every store at the remote root that a folder mirrors, by name; None if the folder mirrors nothing.

    Raises `Unreachable` if the remote side cannot be looked at.
    """
    mirror = mirror_of(root)
    if mirror is None:
        return None
    access = Access(mirror, QUICK)
    names = [n for n, size in access.children("").items() if size is None and STORE_NAME.fullmatch(n)]
    found: dict[str, Seen] = {}

    def see(name: str) -> None:
        seen = _see(access, name)
        if seen is not None:
            found[name] = seen

    in_threads(see, (name for name in names if not name.endswith(".partial")))
    return [found[name] for name in sorted(found)]


def see_manifest(access: Access, name: str, prefix: str = "") -> Path | None:
    """The manifest of a remote store, copied here; None if it has none. It may be damaged: `load_manifest` says so."""
    return _see_file(access, name, f"{prefix}{MANIFEST}", access.mirror.seen(name) / MANIFEST)


def see_plan(access: Access, name: str) -> Path | None:
    """The plan of a remote store, copied here; None if it has none."""
    return _see_file(access, name, PLAN, access.mirror.seen(f"{name}.partial") / PLAN)


def load_remote(access: Access, name: str, copy: Path) -> Manifest:
    """A manifest that was copied here; `StoreError` names its remote place."""
    try:
        return load_manifest(copy)
    except StoreError as error:
        raise damaged(access, f"{name}/{MANIFEST}", error.problem) from error


def remote_plan(access: Access, name: str) -> Plan | None:
    """What an unfinished remote store is to become; None if none was begun."""
    copy = see_plan(access, name)
    try:
        return None if copy is None else load_plan(copy)
    except StoreError as error:
        raise StoreError(
            error.problem,
            where=access.where(f"{name}/{PLAN}"),
            remedy="Throw the unfinished store away with --restart.",
        ) from error


def listed_shards(names: Iterable[str], layouts: Mapping[str, SplitLayout]) -> set[Shard]:
    """The shards that done-objects are named after; names of anything else are left out."""
    found = (match for name in names if (match := _DONE_NAME.fullmatch(name)))
    return {layouts[m[1]].shard(m[1], int(m[2])) for m in found if int(m[2]) < layouts[m[1]].shards}


def done_key(name: str, shard: Shard) -> str:
    """The done-object of a shard."""
    return f"{name}/{DONE}/{shard.split}-{shard.index}.json"


def read_done(access: Access, name: str, shard: Shard, layouts: Mapping[str, SplitLayout]) -> DoneShard | None:
    """What a done-object says; None if it is gone, or says nothing that can be believed."""
    data = access.read(done_key(name, shard), 0, MAX_DONE_BYTES)
    try:
        done = None if data is None else DoneShard.parse(data, layouts)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if done is None or done.shard != shard:
        return None
    bounds = {array: layouts[shard.split].object_bounds(array, shard) for array in ARRAYS}
    sensible = all(least <= done.objects[array].size <= most for array, (least, most) in bounds.items())
    return done if sensible else None


def records_of(done: DoneShard) -> dict[str, ObjectRecord]:
    """{key within the store: record} of a shard's objects."""
    shard = done.shard
    return {object_key(shard.split, array, shard.index): done.objects[array] for array in ARRAYS}


def records_in(manifest: Manifest) -> dict[str, ObjectRecord]:
    """{key within the store: record} of everything that a manifest lists."""
    shards = {
        object_key(split, array, index): record
        for split in SPLITS
        for index, records in enumerate(manifest.shards[split])
        for array, record in records.items()
    }
    return shards | dict(manifest.metadata)


def damaged(access: Access, key: str, why: str) -> StoreError:
    """The error for a remote object that is not what it should be."""
    return StoreError(
        f"The remote store is damaged: {why}",
        where=access.where(key),
        remedy="Remove it there (`tosca cache rm`), then run the `tosca extract` command that made it again.",
    )


def keep(path: Path, data: bytes) -> None:
    """Puts a small file in place, whole; several processes and threads may do so at the same time."""
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
        write_whole(temporary, data)
        temporary.replace(path)


def _see(access: Access, name: str) -> Seen | None:
    folder = access.mirror.folder
    there = access.children(name)
    if MANIFEST in there:
        copy = see_manifest(access, name)
        return None if copy is None else Seen(folder / name, copy.parent, True)
    copy = see_plan(access, name) if PLAN in there else None
    if copy is None:
        return None
    try:
        layouts = load_plan(copy).layouts
    except StoreError:  # whoever lists it says so
        return Seen(folder / f"{name}.partial", copy.parent, False)
    done = listed_shards(access.children(f"{name}/{DONE}"), layouts)
    return Seen(folder / f"{name}.partial", copy.parent, False, frozenset(done))


def _see_file(access: Access, name: str, key: str, copy: Path) -> Path | None:
    data = access.read(f"{name}/{key}", 0, Limit.MANIFEST)
    if data is None:
        return None
    keep(copy, data)
    return copy


def mirror_and_access(path: Path, tries: int) -> tuple[Mirror, Access] | None:
    """The mirror that a store's path is in, and a way to its remote side; None for a path elsewhere."""
    mirror = mirror_of(path.parent)
    if mirror is None or not STORE_NAME.fullmatch(path.name) or path.name.endswith(".partial"):
        return None
    return mirror, Access(mirror, tries)
