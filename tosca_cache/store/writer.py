"""Building a store: PATH.partial grows shard by shard, survives any interruption, and becomes PATH by one rename.

One process builds it; or several, each with a part of the shards, and then one that finishes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tosca_cache.errors import StoreError
from tosca_cache.store.arrays import Rows, write_shard
from tosca_cache.store.content import checked_rows
from tosca_cache.store.disk import remove_tree, storage, sync, write_durably
from tosca_cache.store.journal import (
    DoneShard,
    StoreInProgress,
    make_folders,
    publish_sealed,
    record_shard,
    recorded_plan,
    seal_store,
)
from tosca_cache.store.layout import SPLITS, Shard, SplitLayout, partial_path
from tosca_cache.store.locks import FileLock, Part, acquiring
from tosca_cache.store.manifest import MANIFEST, PLAN, Plan, SkippedRow, seal
from tosca_cache.store.reader import Store, open_store
from tosca_cache.store.spec import StoreSpec, canonical, plain


class StoreWriter(StoreInProgress):
    """The one process that builds a store, or a part of it; a context manager that gives up its lock at the end.

    path: where the finished store will be. Use `StoreWriter.open`.
    """

    def __init__(self, path: Path, plan: Plan, lock: FileLock, part: Part | None = None) -> None:
        super().__init__(partial_path(path), plan, part)
        self.path, self._lock = path, lock

    @classmethod
    def open(
        cls,
        path: Path,
        spec: StoreSpec,
        *,
        class_names: Sequence[str],
        domain_names: Sequence[str],
        numerics: Mapping[str, Any],
        restart: bool = False,
        shard_rows: int | None = None,
        part: Part | None = None,
    ) -> StoreWriter:
        """Starts a store, or goes on with an unfinished one that is to be the same.

        path: the finished store's folder. spec: also says how many rows and views each split has.
        numerics: what the bits depend on besides the specification; an unfinished store keeps to what it began with.
        restart: throw an unfinished store away first. shard_rows: most rows a shard; by the dataset's size if None.
        part: write these shards only, beside processes that write the other parts; `finish` is for a writer without one.

        Raises `StoreError` if the store is finished already, if another process is writing it (`StoreBusy`), if an
        unfinished store is to become something else (naming every field that differs), or if the disk
        refuses; and `ValueError` for a part that is to restart, because what it would throw away belongs to others, and
        for another number of classes than the specification's.
        """
        if restart and part is not None:
            raise ValueError("a part cannot restart a store")
        path = Path(path)
        layouts = {
            split: SplitLayout.plan(
                spec.rows(split), spec.view_count(split), spec.backbone["dim"], spec.dtype, shard_rows
            )
            for split in SPLITS
        }
        plan = Plan(spec, plain(numerics, "numerics"), tuple(class_names), tuple(domain_names), layouts)
        with acquiring(path, part) as lock, storage(path):
            if path.exists():
                raise _finished(path)
            if restart:
                remove_tree(partial_path(path), MANIFEST, PLAN)
            _begin_or_check(partial_path(path), plan)
            return cls(path, plan, lock, part)

    @property
    def numerics(self) -> dict[str, Any]:
        """What the bits depend on besides the fingerprint, as recorded when the store was begun."""
        return dict(self.plan.numerics)

    @property
    def taken(self) -> tuple[int, int]:
        """(rows, views) that another store gave to the shards that are done, whoever published them."""
        rows, views = (sum(done.taken[k] for done in self.done.values()) for k in (0, 1))
        return rows, views

    def publish(
        self, shard: Shard, rows: Rows, *, skipped: Mapping[int, str] | None = None, taken: tuple[int, int] = (0, 0)
    ) -> None:
        """Writes one pending shard of n rows; when this returns, no interruption can lose it. One thread at a time.

        rows: all arrays; features finite, of any floating type, paths relative.
        skipped: {row of the split: reason} of images that could not be read; these rows need values, too, but no reader of
        the finished store sees them. taken: (rows, views) that another store gave.

        Raises `StoreError` for features that are not finite in the stored dtype and if the disk refuses; the shard then
        stays pending. Raises `ValueError` for wrong shapes and shards that are not pending.
        """
        self._must_hold_the_lock()
        if shard in self.done:
            raise ValueError(f"{shard} is already published")
        if shard not in self.shards:
            raise ValueError(f"{shard} belongs to another part")
        skipped = dict(skipped or {})
        rows = checked_rows(self.plan, shard, rows, skipped)
        objects = write_shard(self.folder, self.plan.layouts[shard.split], shard, rows)
        gone = tuple(SkippedRow(row, rows["paths"][row - shard.start], why) for row, why in sorted(skipped.items()))
        done = DoneShard(shard, objects, gone, taken)
        record_shard(self.folder, done)
        self.done[shard] = done

    def finish(self, provenance: Mapping[str, Any], left_out: Mapping[str, Sequence[str]] | None = None) -> Store:
        """Writes the manifest, gives the store its final name and the lock back, and opens it.

        provenance: where, when and how long; plain JSON values, kept apart from the manifest. left_out: why -> paths of
        what the dataset has besides its rows, for the manifest.

        Raises `StoreError` if a shard is missing or not as it was written, if nothing but skipped rows is in a split, or
        if the disk refuses; everything done so far is kept.
        """
        self._must_hold_the_lock()
        if self.part is not None:
            raise ValueError("a part cannot finish the store")
        if not self.sealed:
            self.done = {shard: done for shard, done in self.done.items() if done.is_there(self.folder)}
            if self.pending():
                raise _incomplete(self.folder, self.pending())
            seal_store(self.folder, self.plan, self.done.values(), provenance, left_out or {})
        publish_sealed(self.path)
        self.close()
        return open_store(self.path)

    def close(self) -> None:
        """Gives the lock back; an unfinished store stays for the next run."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _must_hold_the_lock(self) -> None:
        if not self._lock.held:
            raise ValueError("this writer has been closed, or belongs to the parent of this process")


def _begin_or_check(folder: Path, plan: Plan) -> None:
    """Makes an empty unfinished store, or checks that the one that is there is to become the same.

    Only within `acquiring`. Raises `StoreError`, naming every field that differs.
    """
    found = recorded_plan(folder)
    if found is None:
        remove_tree(folder)  # whatever was there had not got as far as its plan
        make_folders(folder)
        write_durably({folder / PLAN: seal(plan.to_dict())})
    elif differences := found.differences(plan):
        lines = [f"    {field}: begun with {_short(theirs)}, now {_short(ours)}" for field, theirs, ours in differences]
        raise StoreError(
            "An unfinished store is here that was begun with other settings:\n" + "\n".join(lines),
            where=folder,
            remedy="Give the settings that it was begun with, or throw it away with --restart.",
        )
    else:  # whoever began it, and wrote records, may have died before their names were on the disk
        make_folders(folder)
    sync(folder.parent)
    with suppress(PermissionError):  # the root's own folder may be closed to us, and then the root is old
        sync(folder.parent.parent)


def _short(value: object) -> str:
    text = canonical(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _finished(path: Path) -> StoreError:
    """The error for a final name that is taken."""
    if not (path / MANIFEST).exists():
        return StoreError("Something that is no store is in the way.", where=path, remedy="Move it, then run again.")
    sync(path.parent)  # whoever finished it may have died before that
    return StoreError(
        "This store is finished; it is never written again.",
        where=path,
        remedy="Use it as it is, or remove its folder and run the same command again.",
    )


def _incomplete(folder: Path, pending: list[Shard]) -> StoreError:
    return StoreError(
        f"The store cannot be finished: {len(pending)} shards are missing, the first is shard {pending[0].index} of "
        f"split {pending[0].split}.",
        where=folder,
        remedy="Run the same command again; only what is missing is computed.",
    )
