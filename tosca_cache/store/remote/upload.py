"""What a writer of a store below a mirror does besides: the lease, what others have done already, and the uploading."""

from __future__ import annotations

import queue
import threading
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tosca_cache.errors import StoreError, ToscaWarning
from tosca_cache.store.disk import storage, sync_all
from tosca_cache.store.journal import DoneShard, Journal, finished_shards, journal_path
from tosca_cache.store.layout import Shard, partial_path
from tosca_cache.store.manifest import MANIFEST, PLAN, Plan
from tosca_cache.store.parts import Part, note_paths
from tosca_cache.store.remote.access import PATIENT, Access, in_threads
from tosca_cache.store.remote.fetch import fetch_object
from tosca_cache.store.remote.finish import unseal, upload_finished, upload_object
from tosca_cache.store.remote.lease import Lease
from tosca_cache.store.remote.mirror import shown
from tosca_cache.store.remote.progress import transfer
from tosca_cache.store.remote.state import (
    DONE,
    SEALED,
    done_key,
    listed_shards,
    mirror_and_access,
    read_done,
    records_of,
    remote_plan,
)
from tosca_cache.store.unfinished import all_shards, begin_or_check, recorded_plan

PATIENCE = 30.0  # seconds that whoever leaves early waits for the shard that is being uploaded


class Uploader:
    """The remote side of a store that is being written, by the one process that holds its lease. Use `Uploader.take`.

    Shards are uploaded by a thread, in the order in which they were done: five objects, then the done-object. What the
    thread cannot do is raised by the next call of any method.
    """

    def __init__(self, access: Access, path: Path, part: Part | None, lease: Lease) -> None:
        self.access, self.path, self.part, self.lease = access, path, part, lease
        self.name, self.folder = path.name, partial_path(path)
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._moved = threading.Event()  # something was uploaded, or could not be
        self._queue: queue.Queue[DoneShard | None] = queue.Queue()
        self._sent = 0  # bytes
        self._given = 0
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)

    @classmethod
    def take(cls, path: Path, part: Part | None) -> Uploader | None:
        """Takes the lease of a store, or of a part; None below a plain root.

        Raises `StoreBusy` if another machine is writing it, `StoreError` if the remote side cannot be had.
        """
        found = mirror_and_access(path, PATIENT)
        if found is None:
            return None
        access = found[1]
        return cls(access, path, part, Lease.take(access, path.name, part))

    def begin(self, plan: Plan, *, restart: bool) -> None:
        """Makes the unfinished store here have what the remote one has; only while nobody else here may begin it.

        restart: throw the unfinished remote store away instead. Raises `StoreError` if the remote store is finished, or was
        begun as something else than the one here.
        """
        there = self.access.children(self.name)
        if MANIFEST not in there and SEALED in there and MANIFEST in self.access.children(f"{self.name}/{SEALED}"):
            unseal(self.access, self.name, self.lease)
            there = self.access.children(self.name)
        if MANIFEST in there:
            raise StoreError(
                "This store is finished at its remote root; it is never written again.",
                where=shown(self.path),
                remedy="Use it as it is, or remove it with `tosca cache rm` and run the same command again.",
            )
        if restart:
            self.access.remove(f"{self.name}/{PLAN}")
            self.access.remove_all(f"{self.name}/{key}" for key in self.access.objects(self.name))
        elif PLAN in there:
            self._bring(plan)
        elif DONE in there:  # of a store whose removal was interrupted: nobody knows what they were to become
            self.access.remove_all(f"{self.name}/{DONE}/{key}" for key in self.access.children(f"{self.name}/{DONE}"))

    def start(self, plan: Plan, done: Iterable[DoneShard]) -> None:
        """Lists the store at the remote root as begun, and begins to upload; first what is done here but not there."""
        with storage(self.folder):
            sealed = (self.folder / MANIFEST).exists()
            data = b"" if sealed else (self.folder / PLAN).read_bytes()
        if not sealed and not self.access.create(f"{self.name}/{PLAN}", data):
            there = remote_plan(self.access, self.name)
            if there is None or there.differences(plan):
                raise self._other_plan()
        listed = set() if sealed else self._listed(plan)
        left = [] if sealed else [entry for entry in sorted(done, key=lambda d: d.shard) if entry.shard not in listed]
        self._thread.start()
        for entry in left:
            self.add(entry)

    def add(self, done: DoneShard) -> None:
        """Has a shard uploaded that is listed here. What waits is a line of a done-list, so that any number may wait."""
        self._check()
        self._given += _size(done)
        self._queue.put(done)

    def drain(self) -> None:
        """Waits until everything is uploaded."""
        before = self._sent
        with transfer(f"uploading what is done of {shown(self.path)}", self._given - before) as advance:
            while self._queue.unfinished_tasks:
                self._check()
                self._moved.wait(0.2)  # the lease may be lost meanwhile
                self._moved.clear()
                advance(self._sent - before)
                before = self._sent
        self._check()

    def finish(self) -> None:
        """Uploads what is left of the store, which is finished here, and its manifest."""
        self._check()
        upload_finished(self.access, self.path, self.lease)

    def close(self, *, drain: bool = False) -> None:
        """Ends the uploading, and gives the lease back. drain: first upload everything, and this part's note."""
        try:
            if drain and not self._stop.is_set():
                self.drain()
                for note in note_paths(self.folder) if self.part is not None and self.folder.is_dir() else []:
                    if Part.named_in(note.name) == self.part:
                        self.access.write(f"{self.name}/{note.name}", note.read_bytes())
        finally:
            self._stop.set()
            self._queue.put(None)  # so that the thread looks up
            if self._thread.is_alive():
                self._thread.join(PATIENCE)
            self.lease.release()

    def _run(self) -> None:
        while (done := self._queue.get()) is not None and not self._stop.is_set():
            try:
                if self._error is None:
                    self._upload(done)
            except BaseException as error:  # raised where somebody waits for it
                self._error = error
            finally:
                self._queue.task_done()
                self._moved.set()

    def _upload(self, done: DoneShard) -> None:
        self.lease.check()
        records = records_of(done)
        in_threads(lambda k: upload_object(self.access, self.folder / k, f"{self.name}/{k}", records[k]), records)
        self.lease.check()
        self.access.write(done_key(self.name, done.shard), done.line())
        self._sent += _size(done)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        self.lease.check()

    def _bring(self, plan: Plan) -> None:
        there = remote_plan(self.access, self.name)
        if there is None:
            return
        here = recorded_plan(self.folder)
        if here is None:
            begin_or_check(self.folder, there)
        elif here.differences(there):
            raise self._other_plan()
        if there.differences(plan) or (self.folder / MANIFEST).exists():
            return  # `begin_or_check` says so; or all is here
        have = finished_shards(self.folder, plan.layouts)
        mine = all_shards(plan) if self.part is None else self.part.of(all_shards(plan))
        wanted = [shard for shard in sorted(self._listed(plan)) if shard in set(mine) and shard not in have]
        if wanted:
            self._bring_shards(plan, wanted)
        if self.part is None:
            self._bring_notes()

    def _bring_shards(self, plan: Plan, wanted: list[Shard]) -> None:
        journal = Journal(journal_path(self.folder, self.part), plan.layouts)
        total = sum(s.rows * plan.layouts[s.split].row_bytes for s in wanted)
        with transfer(f"fetching the {len(wanted)} finished shards of {shown(self.path)}", total) as advance:
            for shard in wanted:
                done = read_done(self.access, self.name, shard, plan.layouts)
                if done is not None and self._bring_objects(done):
                    journal.append(done)
                else:
                    warnings.warn(
                        ToscaWarning(
                            f"Shard {shard.index} of split {shard.split} is not as it was uploaded to {shown(self.path)}; "
                            "it is computed again."
                        ),
                        stacklevel=2,
                    )
                    self.access.remove(done_key(self.name, shard))
                advance(shard.rows * plan.layouts[shard.split].row_bytes)

    def _bring_objects(self, done: DoneShard) -> bool:
        records, good = records_of(done), []

        def bring(key: str) -> None:
            if fetch_object(self.access, f"{self.name}/{key}", records[key], self.folder / key):
                good.append(self.folder / key)

        in_threads(bring, records)
        with storage(self.folder):
            sync_all({*good, *(file.parent for file in good)})
        return len(good) == len(records)

    def _bring_notes(self) -> None:
        for name in self.access.children(self.name):
            part = Part.named_in(name)
            if part is not None and name == f"note.{part.name}.json" and not (self.folder / name).exists():
                data = self.access.read(f"{self.name}/{name}", 0, 1 << 20)
                with storage(self.folder):
                    (self.folder / name).write_bytes(data or b"{}")

    def _listed(self, plan: Plan) -> set[Shard]:
        return listed_shards(self.access.children(f"{self.name}/{DONE}"), plan.layouts)

    def _other_plan(self) -> StoreError:
        return StoreError(
            "The unfinished store at the remote root was begun with other settings than the one here.",
            where=shown(self.path),
            remedy=f"Remove {self.folder} to go on with the remote one, or throw both away with --restart.",
        )


def _size(done: DoneShard) -> int:
    return sum(record.size for record in done.objects.values())


def remote_numerics(path: Path) -> dict[str, Any] | None:
    """What an unfinished store at the remote root was begun with; None if there is none, or `path` is in no mirror."""
    found = mirror_and_access(path, PATIENT)
    plan = None if found is None else remote_plan(found[1], path.name)
    return None if plan is None else dict(plan.numerics)
