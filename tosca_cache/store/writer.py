"""Building a store: PATH.partial grows shard by shard, survives any interruption, and becomes PATH by one rename."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from numpy.typing import ArrayLike

from tosca_cache.errors import StoreError
from tosca_cache.store.arrays import create_arrays, write_shard
from tosca_cache.store.disk import regular_size, remove_tree, storage, sync_folder, write_durably
from tosca_cache.store.finish import publish_sealed, seal_store
from tosca_cache.store.journal import DoneShard, Journal
from tosca_cache.store.layout import (
    ARRAYS,
    SPLITS,
    Shard,
    SplitLayout,
    compact_path,
    metadata_keys,
    object_key,
    partial_path,
)
from tosca_cache.store.lock import WriterLock
from tosca_cache.store.manifest import MANIFEST, PLAN, Plan, load_manifest, load_plan, seal
from tosca_cache.store.reader import Store, open_store
from tosca_cache.store.rows import checked_rows
from tosca_cache.store.spec import StoreSpec, canonical, plain


class StoreWriter:
    """The one process that builds a store; a context manager that gives up its lock at the end.

    path: where the finished store will be. plan: what it is going to be. Use `StoreWriter.open`.
    """

    def __init__(self, path: Path, plan: Plan, lock: WriterLock) -> None:
        self.path = path
        self.plan = plan
        self._lock = lock
        self._folder = partial_path(path)
        self._sealed = (self._folder / MANIFEST).exists()
        self._journal = Journal(self._folder, plan.layouts)
        self._done = {done.shard: done for done in self._journal.entries}
        # A listed shard whose objects are gone or cut (a disk that lied about fsync) is simply written again.
        self._done = {shard: done for shard, done in self._done.items() if self._is_there(done)}

    @classmethod
    def open(
        cls,
        path: Path,
        spec: StoreSpec,
        *,
        class_names: Sequence[str],
        domain_names: Sequence[str],
        rows: Mapping[str, int],
        views: Mapping[str, int],
        numerics: Mapping[str, Any],
        restart: bool = False,
        shard_rows: int | None = None,
    ) -> StoreWriter:
        """Starts a store, or goes on with an unfinished one that is to be the same.

        path: the finished store's folder. rows: {"train": N, "test": N}. views: {"train": 1+V, "test": 1+Vt}.
        numerics: what the bits depend on besides the specification; an unfinished store keeps to what it began with.
        restart: throw an unfinished store away first. shard_rows: most rows a shard; by the dataset's size if None.

        Raises `StoreError` if the store is finished already, if another process is writing it, if an unfinished store
        is to become something else (naming every field that differs), or if the disk refuses.
        """
        path = Path(path)
        dim = spec.backbone["dim"]
        layouts = {s: SplitLayout.plan(rows[s], views[s], dim, spec.dtype, shard_rows) for s in SPLITS}
        plan = Plan(spec, plain(numerics, "numerics"), tuple(class_names), tuple(domain_names), layouts)
        lock = WriterLock.acquire(path)
        try:
            with storage(path):
                if path.exists():
                    raise _finished(path)
                remove_tree(compact_path(path), MANIFEST)
                if restart:
                    remove_tree(partial_path(path), MANIFEST, PLAN)
                _begin(partial_path(path), plan)
            return cls(path, plan, lock)
        except BaseException:
            lock.release()
            raise

    @staticmethod
    def recorded_numerics(path: Path) -> dict[str, Any] | None:
        """What an unfinished store at PATH.partial was begun with; None if there is none, `StoreError` if it is damaged.

        For a caller that wants to go on with it whatever its own defaults are now.
        """
        plan = _recorded_plan(partial_path(Path(path)))
        return None if plan is None else dict(plan.numerics)

    @property
    def spec(self) -> StoreSpec:
        """The fingerprint."""
        return self.plan.spec

    @property
    def numerics(self) -> dict[str, Any]:
        """What the bits depend on besides the fingerprint, as recorded when the store was begun."""
        return dict(self.plan.numerics)

    @property
    def total_rows(self) -> int:
        """Rows of both splits."""
        return sum(layout.rows for layout in self.plan.layouts.values())

    @property
    def done_rows(self) -> int:
        """Rows of both splits in shards that are done, skipped ones included."""
        return self.total_rows - sum(shard.rows for shard in self.pending())

    @property
    def skipped(self) -> dict[str, list[int]]:
        """Rows of each split that were published as skipped, by this run or an earlier one."""
        done = sorted(self._done.values(), key=lambda done: done.shard)
        return {split: [row for d in done if d.shard.split == split for row in d.skipped] for split in SPLITS}

    def pending(self) -> list[Shard]:
        """The shards that are still to be published, train first, in order; any order of publishing is good."""
        if self._sealed:
            return []
        shards = [shard for split in SPLITS for shard in self.plan.layouts[split].iterate(split)]
        return [shard for shard in shards if shard not in self._done]

    def publish(
        self,
        shard: Shard,
        *,
        features: ArrayLike,
        labels: ArrayLike,
        domains: ArrayLike,
        views: ArrayLike,
        paths: Sequence[str],
        skipped: Mapping[int, str] | None = None,
    ) -> None:
        """Writes one pending shard of n rows; when this returns, no interruption can lose it. One thread at a time.

        features: [n, 1+V, d], floating, all finite. labels, domains: [n]. views: [n, 1+V, 6]. paths: n, relative.
        skipped: {row of the split: reason} of images that could not be read; these rows need all other arguments, too,
        but will not be in the finished store.

        Raises `StoreError` for features that are not finite in the stored dtype and if the disk refuses; the shard then
        stays pending. Raises `ValueError` for wrong shapes and shards that are not pending.
        """
        self._must_hold_the_lock()
        if self._sealed or shard in self._done:
            raise ValueError(f"{shard} is already published")
        skipped = dict(skipped or {})
        rows = checked_rows(
            self.plan,
            shard,
            features=features,
            labels=labels,
            domains=domains,
            views=views,
            paths=paths,
            skipped=skipped,
        )
        done = DoneShard(shard, write_shard(self._folder, shard, rows), skipped)
        self._journal.append(done)
        self._done[shard] = done

    def finish(self, provenance: Mapping[str, Any]) -> Store:
        """Drops skipped rows, writes the manifest, gives the store its final name and the lock back, and opens it.

        provenance: where, when and how long; plain JSON values, kept apart from the manifest.

        Raises `StoreError` if a shard is missing or not as it was written, if nothing but skipped rows is in a split, or
        if the disk refuses; everything done so far is kept.
        """
        self._must_hold_the_lock()
        folder = self._folder
        if not self._sealed:
            lost = [done for done in self._done.values() if not self._is_there(done)]
            for done in lost:
                del self._done[done.shard]
            if self.pending():
                raise _incomplete(self._folder, self.pending())
            folder = seal_store(self.path, self.plan, list(self._done.values()), provenance)
        publish_sealed(folder, self.path)
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

    def _is_there(self, done: DoneShard) -> bool:
        keys = {array: object_key(done.shard.split, array, done.shard.index) for array in ARRAYS}
        return all(regular_size(self._folder / key) == done.objects[array].size for array, key in keys.items())


def _begin(folder: Path, plan: Plan) -> None:
    """Makes an empty unfinished store, or checks that the one that is there is to become the same."""
    found = _recorded_plan(folder)
    if found is None:
        remove_tree(folder)  # whatever was there had not got as far as its plan
        folder.mkdir()
        create_arrays(folder, plan.layouts)
        write_durably(folder / PLAN, seal(plan.to_dict()))
        sync_folder(folder.parent)
        return
    differences = found.differences(plan)
    lost = [key for key in metadata_keys() if regular_size(folder / key) is None]
    if lost:
        raise StoreError(
            "The unfinished store is damaged: zarr's metadata are gone.",
            where=folder / lost[0],
            remedy="Throw the unfinished store away with --restart.",
        )
    if differences:
        lines = [f"    {field}: begun with {_short(theirs)}, now {_short(ours)}" for field, theirs, ours in differences]
        raise StoreError(
            "An unfinished store is here that was begun with other settings:\n" + "\n".join(lines),
            where=folder,
            remedy="Give the settings that it was begun with, or throw it away with --restart.",
        )


def _recorded_plan(folder: Path) -> Plan | None:
    """What an unfinished store is to become: from its manifest if only its final name is missing, else from its plan."""
    try:
        if (folder / MANIFEST).exists():
            return load_manifest(folder / MANIFEST).plan
        return load_plan(folder / PLAN) if (folder / PLAN).exists() else None
    except StoreError as error:
        raise StoreError(
            error.problem, where=error.where, remedy="Throw the unfinished store away with --restart."
        ) from error


def _finished(path: Path) -> StoreError:
    """The error for a final name that is taken; what a crash left beside a finished store is swept up on the way."""
    if not (path / MANIFEST).exists():
        return StoreError("Something that is no store is in the way.", where=path, remedy="Move it, then run again.")
    remove_tree(partial_path(path), MANIFEST, PLAN)
    remove_tree(compact_path(path), MANIFEST)
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


def _short(value: Any) -> str:
    text = canonical(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
