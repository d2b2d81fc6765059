"""A store that is being built, as anybody sees it who only looks: its plan, and what is done of it by whom."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tosca_cache.errors import StoreError
from tosca_cache.store.arrays import create_arrays
from tosca_cache.store.disk import regular_size, remove_tree, sync_all, sync_folder, write_durably
from tosca_cache.store.journal import DoneShard, finished_shards, journal_paths
from tosca_cache.store.layout import SPLITS, Shard, metadata_keys
from tosca_cache.store.manifest import MANIFEST, PLAN, Plan, load_manifest, load_plan, seal
from tosca_cache.store.parts import Part, missing_by_part
from tosca_cache.store.spec import canonical


@dataclass(frozen=True)
class StoreInProgress:
    """What there is of an unfinished store.

    folder: PATH.partial. sealed: all is there but the final name. done: the shards that are there; all of them if sealed,
    and then without records.
    """

    folder: Path
    plan: Plan
    sealed: bool
    done: Mapping[Shard, DoneShard | None]

    @property
    def shards(self) -> list[Shard]:
        """All shards, train first, in order."""
        return all_shards(self.plan)

    @property
    def rows(self) -> int:
        """Rows of both splits."""
        return sum(layout.rows for layout in self.plan.layouts.values())

    @property
    def done_rows(self) -> int:
        """Rows of both splits in shards that are done, skipped ones included."""
        return sum(shard.rows for shard in self.done)

    @property
    def begun(self) -> list[Part]:
        """The parts that have a done-list, sorted."""
        found = {Part.named_in(path.name) for path in journal_paths(self.folder)}
        return sorted(part for part in found if part is not None)

    def missing(self, count: int) -> dict[Part, list[Shard]]:
        """Of `count` parts those that are not complete, with the shards that they have still to write."""
        parts = [Part(count, index) for index in range(1, count + 1)]
        return missing_by_part(parts, self.shards, self.done)


def all_shards(plan: Plan) -> list[Shard]:
    """The shards of a store, train first, in order."""
    return [shard for split in SPLITS for shard in plan.layouts[split].iterate(split)]


def read_unfinished(folder: Path) -> StoreInProgress | None:
    """What there is of the unfinished store in PATH.partial; None if none was begun, `StoreError` if it is damaged."""
    if (folder / MANIFEST).exists():
        plan = load_manifest(folder / MANIFEST).plan
        return StoreInProgress(folder, plan, True, dict.fromkeys(all_shards(plan)))
    if not (folder / PLAN).exists():
        return None
    plan = load_plan(folder / PLAN)
    return StoreInProgress(folder, plan, False, finished_shards(folder, plan.layouts))


def recorded_plan(folder: Path) -> Plan | None:
    """What an unfinished store is to become: from its manifest if only its final name is missing, else from its plan."""
    try:
        if (folder / MANIFEST).exists():
            return load_manifest(folder / MANIFEST).plan
        return load_plan(folder / PLAN) if (folder / PLAN).exists() else None
    except StoreError as error:
        raise StoreError(
            error.problem, where=error.where, remedy="Throw the unfinished store away with --restart."
        ) from error


def begin_or_check(folder: Path, plan: Plan) -> None:
    """Makes an empty unfinished store, or checks that the one that is there is to become the same.

    Only while nobody else can: see `locks.registry_lock`. Raises `StoreError`, naming every field that differs.
    """
    found = recorded_plan(folder)
    if found is None:
        remove_tree(folder)  # whatever was there had not got as far as its plan
        folder.mkdir()
        create_arrays(folder, plan.layouts)
        write_durably(folder / PLAN, seal(plan.to_dict()))
        _sync_names(folder)
        return
    lost = [key for key in metadata_keys() if regular_size(folder / key) is None]
    if lost:
        raise StoreError(
            "The unfinished store is damaged: zarr's metadata are gone.",
            where=folder / lost[0],
            remedy="Throw the unfinished store away with --restart.",
        )
    differences = found.differences(plan)
    if differences:
        lines = [f"    {field}: begun with {_short(theirs)}, now {_short(ours)}" for field, theirs, ours in differences]
        raise StoreError(
            "An unfinished store is here that was begun with other settings:\n" + "\n".join(lines),
            where=folder,
            remedy="Give the settings that it was begun with, or throw it away with --restart.",
        )
    sync_all(journal_paths(folder))  # whoever wrote them, and began the store, may have died before that
    _sync_names(folder)


def _sync_names(folder: Path) -> None:
    """Waits until the plan's name, the folder's and the root's are on the disk."""
    sync_folder(folder)
    sync_folder(folder.parent)
    with suppress(PermissionError):  # the root's own folder may be closed to us, and then the root is old
        sync_folder(folder.parent.parent)


def _short(value: object) -> str:
    text = canonical(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
