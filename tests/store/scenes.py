"""Ways in which one small store comes to be, each a function that can be called again until it gets through."""

from dataclasses import dataclass, field
from pathlib import Path

from disk_waits import sync_in_turn
from toy_store import open_writer, publish, toy_arrays

from tosca_cache.store import Part, disk, journal

ROWS = {"train": 5, "test": 2}
SHARD_ROWS = 3
ARRAYS = {split: toy_arrays(split, ROWS) for split in ROWS}
PROVENANCE = {"machine": "toy"}


@dataclass(frozen=True)
class Scene:
    """bad: rows that cannot be read. parts: 0 for one writer.

    restart: an unfinished store of other numerics is thrown away first.
    """

    bad: tuple = ()
    parts: int = 0
    restart: bool = False
    shard_rows: int = SHARD_ROWS
    numerics: dict = field(default_factory=lambda: {"batch_size": 4})

    def make(self, path, promise=lambda done: None):
        """Begins or goes on, and finishes; promise: told the rows that are done, then "finished"."""
        if Path(path).exists():
            return
        if self.restart:
            self._begin_otherwise(path)
        for index in range(1, self.parts + 1):
            with self.open(path, part=Part(self.parts, index)) as writer:
                for shard in writer.pending():
                    publish(writer, shard, ARRAYS, self.bad)
        with self.open(path) as writer:
            promise(writer.done_rows)
            for shard in writer.pending():
                publish(writer, shard, ARRAYS, self.bad)
                promise(writer.done_rows)
            writer.finish(PROVENANCE)
            promise("finished")

    def open(self, path, **how):
        """A writer that goes on with the store."""
        return open_writer(path, rows=ROWS, shard_rows=self.shard_rows, numerics=self.numerics, **how)

    def _begin_otherwise(self, path):
        from tosca_cache.store import partial_path
        from tosca_cache.store.writer import recorded_plan

        plan = recorded_plan(partial_path(path))
        if plan is None or plan.numerics == {"batch_size": 9}:
            other = Scene(numerics={"batch_size": 9})
            with other.open(path) as writer:
                for shard in writer.pending()[:1]:
                    publish(writer, shard, ARRAYS)
            self.open(path, restart=True).close()


SCENES = {
    "plain": Scene(),
    "skipped": Scene(bad=(("train", 1),)),
    "parts": Scene(bad=(("train", 1),), parts=2),
    "restart": Scene(restart=True),
}


def without_threads():
    """Waiting for eight files at once makes no difference to what happens here, but to start the threads takes its time."""
    disk.sync_all = journal.sync_all = sync_in_turn
