"""Stage one: every image of a dataset, in all its views, once through the frozen backbone and into a store."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from tosca_cache import __version__
from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.duplicates import find_duplicates
from tosca_cache.datasets.rows import left_out_lines
from tosca_cache.datasets.transforms import TransformSpec
from tosca_cache.devices import describe_machine
from tosca_cache.errors import DatasetError
from tosca_cache.extract.backbone import Backbone
from tosca_cache.extract.compare import relative_error, source_agrees
from tosca_cache.extract.engine import compute
from tosca_cache.extract.fingerprint import ExtractOptions, numerics, store_spec
from tosca_cache.extract.groups import Group, Renderer, ShardBuffer, plan_groups
from tosca_cache.extract.progress import ImageProgress
from tosca_cache.extract.reuse import SourceStore, choose_source, other_numerics, recorded_source, reopen_source
from tosca_cache.store import (
    Part,
    Shard,
    Store,
    StoreSpec,
    StoreWriter,
    open_store,
    partial_path,
    store_path,
)
from tosca_cache.store.manifest import PLAN
from tosca_cache.workers import threads_here

__all__ = ["extract"]

NOTABLE_ERROR = 0.03  # of the features; a remedy is named above it


def extract(
    dataset: ImageDataset,
    backbone: Backbone,
    root: Path,
    options: ExtractOptions | None = None,
    *,
    source: dict[str, Any] | None = None,
    show_progress: bool = True,
) -> Store:
    """The store of a dataset's features below `root`: opened if it is finished, otherwise begun or gone on with.

    A shard that is written stays, whatever happens next; the same call goes on after it, and the finished store is the
    same, bit for bit, as if nothing had happened.

    Arguments:
        source: where weights and images came from, kept in the provenance.

    Raises:
        ImageError: an image cannot be read and `options.on_error` is `fail`.
        StoreError: the disk refuses, someone else is writing this store, or an unfinished one was begun differently.
    """
    extraction = Extraction(dataset, backbone, root, options or ExtractOptions())
    if extraction.path.exists():
        return open_store(extraction.path)
    with extraction.open_writer() as writer:
        error = extraction.relative_error()
        last_run = extraction.write_shards(writer, error, show_progress=show_progress)
        return extraction.finish(writer, source or {}, error, last_run)


@dataclass(frozen=True)
class Extraction:
    """What is to become which store below `root`."""

    dataset: ImageDataset
    backbone: Backbone
    root: Path
    options: ExtractOptions

    @cached_property
    def transform(self) -> TransformSpec:
        """What is done to an image before the backbone sees it."""
        return self.backbone.transform(self.options.normalise)

    @cached_property
    def spec(self) -> StoreSpec:
        """The fingerprint of the store."""
        return store_spec(self.dataset, self.backbone, self.transform, self.options)

    @cached_property
    def path(self) -> Path:
        """Where the finished store will be."""
        return store_path(self.root, self.spec)

    @property
    def workers(self) -> int:
        """Threads."""
        return self.options.workers or threads_here()

    def open_writer(self, part: Part | None = None, facts: Mapping[str, Any] | None = None) -> StoreWriter:
        """Begins the store or goes on with it; see `StoreWriter.open` for what it raises.

        facts: what the bits depend on; those of this process, and the stores that something is taken from, if None.
        """
        return StoreWriter.open(
            self.path,
            self.spec,
            class_names=self.dataset.class_names,
            domain_names=self.dataset.domain_names,
            numerics=facts or self._facts(),
            restart=self.options.restart,
            part=part,
        )

    def source(self, facts: Mapping[str, Any]) -> SourceStore | None:
        """The store that something is taken from: the one that was chosen when this one was begun, if it is still there."""
        digest = recorded_source(facts)
        if digest not in self._sources:
            self._sources[digest] = reopen_source(self.root, self.dataset, self.spec, facts)
        return self._sources[digest]

    def relative_error(self) -> float | None:
        """How far the features of a few images are from float32."""
        return relative_error(self.dataset, self.backbone, self.transform)

    def summary(self, writer: StoreWriter, how: str, error: float | None) -> list[str]:
        """Which images become what, how, and where; what is taken from another store; and what else there is to know.

        how: who does it. error: see `relative_error`.
        """
        backbone, facts, done = self.backbone, writer.numerics, writer.done_rows
        first = (
            f"{writer.path}: {writer.total_rows} images, {self.options.views} augmented views, "
            f"{backbone.name}.{backbone.tag} at {backbone.image_size} pixels in {backbone.precision} on "
            f"{facts['device']}, batch {facts['batch_size']}, {how}"
            + (f"; {done} images are done already" if done else "")
        )
        lines, digest, source = [first], recorded_source(facts), self.source(facts)
        if source is not None:
            lines += source.lines(writer.pending(), {split: 1 + n for split, n in self.options.counts.items()})
        elif digest is not None:
            lines.append(f"the store {digest[:10]}, from which some were taken when this one was begun, is gone")
        if error:
            remedy = "; --precision fp32 avoids it" if error > NOTABLE_ERROR else ""
            lines.append(f"relative error of the features against float32: {error:.1e}{remedy}")
        return lines + self._remarks()

    def _remarks(self) -> list[str]:
        """What the user may not know of the images: what is no row, and what is there more than once."""
        parts = left_out_lines(self.dataset.left_out)
        lines = [f"left out: {'; '.join(parts)}"] if parts else []
        if self.dataset.unchecked:
            found = find_duplicates(self.dataset).lines()
            lines += [*found, "--duplicates drop leaves them out, --duplicates fail refuses them"] if found else []
        return lines

    def write_shards(
        self, writer: StoreWriter, error: float | None, part: str = "", *, show_progress: bool
    ) -> dict[str, Any]:
        """Computes and publishes the writer's pending shards, and shows how far it is; returns facts about this run.

        error: see `relative_error`. part: which part of the store the writer writes, if not all of it.
        """
        begun, done = time.monotonic(), writer.done_rows
        pending, skip = writer.pending(), self.options.on_error == "skip"
        name, how = " ".join(filter(None, ("extract", self.dataset.name, part))), f"{self.workers} workers"
        with (
            ImageProgress(name, writer.total_rows, done, quiet=not show_progress) as progress,
            # Closed, so that workers have stopped when an error or Ctrl-C leaves this function.
            closing(self.compute_groups(pending, writer.numerics, skip)) as computed,
        ):
            for line in self.summary(writer, ", ".join(filter(None, (part, how))), error) if show_progress else ():
                progress.on_note(line)
            for group in computed:
                progress.advance(group.stop - group.start)
                if group.ends_its_shard:
                    self._publish(writer, group.buffer)
        return {
            "seconds": round(time.monotonic() - begun, 3),
            "images": writer.done_rows - done,
            "workers": self.workers,
        }

    def compute_groups(self, shards: Sequence[Shard], facts: Mapping[str, Any], skip: bool) -> Generator[Group]:
        """Fills the buffers of some shards, in the groups that `facts`, a store's numerics, ask for.

        skip: go on when an image cannot be read.
        """
        source = self.source(facts)

        def buffer(shard: Shard) -> ShardBuffer:
            made = ShardBuffer.empty(shard, 1 + self.options.counts[shard.split], self.backbone.dim)
            if source is not None:
                source.fill(made)
            return made

        pinned = self.backbone.device.type == "cuda"
        renderer = Renderer(self.dataset, self.transform, self.options.seed, skip=skip, pinned=pinned)
        groups = plan_groups(map(buffer, shards), facts["batch_size"])
        return compute(groups, renderer, self.backbone.forward(self.transform), self.workers)

    def finish(
        self, writer: StoreWriter, source: Mapping[str, Any], error: float | None, last_run: Mapping[str, Any]
    ) -> Store:
        """Gives the store its final name; raises `DatasetError` or `StoreError` if it cannot be what it should."""
        _check_classes_left(self.dataset, writer.skipped)
        facts: dict[str, Any] = {
            "tosca_cache": __version__,
            "begun": _begun(writer),
            "source": {**source, "data": self.dataset.listed_in or self.dataset.root},
            "relative_error_against_float32": error,
            "machine": describe_machine(self.backbone.device),
            "last_run": dict(last_run),
        }
        rows, views = writer.taken
        if views:
            other = self.source(writer.numerics)
            entry: dict[str, Any] = {"store": recorded_source(writer.numerics), "rows": rows, "views": views}
            if other is not None:
                entry |= {"name": other.name, "numerics": other_numerics(other.store, writer.numerics)}
            facts["reused"] = [entry]
        return writer.finish(facts, left_out=self.dataset.left_out)

    def _facts(self) -> dict[str, Any]:
        """What the bits depend on; an unfinished store keeps to the source that it was begun with, or to none."""
        facts = numerics(self.path, self.backbone, self.options)
        if not self.options.reuse:
            return facts
        recorded = None if self.options.restart else StoreWriter.recorded_numerics(self.path)
        if recorded is not None:
            return facts | {key: value for key, value in recorded.items() if key == "reused"}
        agrees = partial(source_agrees, self.dataset, self.backbone, self.transform)
        source = choose_source(self.root, self.dataset, self.spec, facts, agrees)
        if source is None:
            return facts
        self._sources[source.digest] = source
        return facts | {"reused": [source.digest]}

    @cached_property
    def _sources(self) -> dict[str | None, SourceStore | None]:
        """By their digests; kept, because finding all images in a store takes a while."""
        return {None: None}

    def _publish(self, writer: StoreWriter, buffer: ShardBuffer) -> None:
        shard = buffer.shard
        split, part = self.dataset.splits[shard.split], slice(shard.start, shard.stop)
        writer.publish(
            shard,
            features=buffer.features,
            labels=split.labels[part],
            domains=split.domains[part],
            views=buffer.views,
            paths=split.paths[part],
            skipped=buffer.skipped,
            taken=buffer.reused,
        )


def _begun(writer: StoreWriter) -> str:
    """When the store was begun, by the clock of its file system: what changed since may not be what was read."""
    try:
        seconds = (partial_path(writer.path) / PLAN).stat().st_mtime
    except OSError:
        seconds = time.time()
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _check_classes_left(dataset: ImageDataset, skipped: Mapping[str, Sequence[int]]) -> None:
    """Raises `DatasetError` if leaving the skipped rows out would leave a class of a split without images."""
    for split, rows in dataset.splits.items():
        left = np.setdiff1d(np.arange(len(rows)), skipped[split])
        gone = np.setdiff1d(rows.labels, rows.labels[left])
        if gone.size:
            names = ", ".join(repr(dataset.class_names[label]) for label in gone[:5])
            raise DatasetError(
                f"not one image of {len(gone)} classes of {split} can be read: {names}",
                where=dataset.root,
                remedy="mend the images, then run the same command with --restart",
            )
