"""Stage one: every image of a dataset, in all its views, once through the frozen backbone and into a store."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rich.progress import TimeRemainingColumn

from tosca_cache import __version__
from tosca_cache.bars import LiveDisplay
from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.duplicates import duplicate_lines, find_duplicates
from tosca_cache.datasets.rows import left_out_lines, lost_classes
from tosca_cache.datasets.transforms import TransformSpec
from tosca_cache.devices import describe_machine
from tosca_cache.errors import DatasetError
from tosca_cache.extract.backbone import Backbone
from tosca_cache.extract.engine import Group, Renderer, ShardBuffer, compute, plan_groups
from tosca_cache.extract.fingerprint import ExtractOptions, numerics, store_spec
from tosca_cache.extract.reuse import SourceStore, find_sources, recorded_source, relative_error, source_agrees
from tosca_cache.store import (
    Part,
    Shard,
    Store,
    StoreSpec,
    StoreWriter,
    open_store,
    partial_path,
    read_unfinished,
    store_path,
)
from tosca_cache.store.manifest import PLAN
from tosca_cache.terminal import make_console
from tosca_cache.text import one_line
from tosca_cache.workers import threads_here

__all__ = ["Extraction"]

NOTABLE_ERROR = 0.03  # of the features; a remedy is named above it
INTERVAL = 10.0  # seconds between plain lines of progress


@dataclass(frozen=True)
class Extraction:
    """What is to become which store below `root`.

    made_from: where weights and images came from, kept in the provenance.
    """

    dataset: ImageDataset
    backbone: Backbone
    root: Path
    options: ExtractOptions = field(default_factory=ExtractOptions)
    made_from: Mapping[str, Any] = field(default_factory=dict)

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

    @cached_property
    def relative_error(self) -> float | None:
        """How far the features of a few images are from float32."""
        return relative_error(self.dataset, self.backbone, self.transform)

    def run(self, *, show_progress: bool = True) -> Store:
        """The store: opened if it is finished, otherwise begun or gone on with, whoever has made some of its shards.

        A shard that is written stays, whatever happens next; the same call goes on after it, and the finished store is the
        same, bit for bit, as if nothing had happened.

        Raises `ImageError` for an image that cannot be read if `options.on_error` is `fail`; `StoreError` if the disk
        refuses, someone else is writing this store, or an unfinished one was begun differently.
        """
        if self.path.exists():
            return open_store(self.path)
        with self.open_writer() as writer:
            return self.finish(writer, self.write_shards(writer, show_progress=show_progress))

    def open_writer(self, part: Part | None = None) -> StoreWriter:
        """Begins the store or goes on with it; see `StoreWriter.open` for what it raises."""
        return StoreWriter.open(
            self.path,
            self.spec,
            class_names=self.dataset.class_names,
            domain_names=self.dataset.domain_names,
            numerics=self._facts(),
            restart=self.options.restart,
            part=part,
        )

    def source(self, facts: Mapping[str, Any]) -> SourceStore | None:
        """The store that something is taken from: the one that was chosen when this one was begun, if it is still there."""
        digest = recorded_source(facts)
        if digest not in self._sources:
            found = find_sources(self.root, self.dataset, self.spec, facts["device"], digest)
            self._sources[digest] = found[0] if found else None
        return self._sources[digest]

    def summary(self, writer: StoreWriter, how: str) -> list[str]:
        """Which images become what, how, and where; what is taken from another store; and what else there is to know.

        how: who does it.
        """
        backbone, facts, done, error = self.backbone, writer.numerics, writer.done_rows, self.relative_error
        lines = [
            f"{writer.path}: {writer.total_rows} images, {self.options.views} augmented views, "
            f"{backbone.name}.{backbone.tag} at {backbone.image_size} pixels in {backbone.precision} on "
            f"{facts['device']}, batch {facts['batch_size']}, {how}"
            + (f"; {done} images are done already" if done else "")
        ]
        digest, source = recorded_source(facts), self.source(facts)
        if source is not None:
            lines.append(source.summary(writer.pending(), {split: 1 + n for split, n in self.options.counts.items()}))
        elif digest is not None:
            lines.append(f"the store {digest[:10]}, from which some were taken when this one was begun, is gone")
        if error:
            remedy = "; --precision fp32 avoids it" if error > NOTABLE_ERROR else ""
            lines.append(f"relative error of the features against float32: {error:.1e}{remedy}")
        if parts := left_out_lines(self.dataset.left_out):
            lines.append(f"left out: {'; '.join(parts)}")
        if self.dataset.unchecked and (found := duplicate_lines(find_duplicates(self.dataset))):
            lines += [*found, "--duplicates drop leaves them out, --duplicates fail refuses them"]
        return lines

    def write_shards(self, writer: StoreWriter, *, show_progress: bool) -> dict[str, Any]:
        """Computes and publishes the writer's pending shards, and shows how far it is; returns facts about this run."""
        part = writer.part.label if writer.part else ""
        begun, done = time.monotonic(), writer.done_rows
        pending, skip = writer.pending(), self.options.on_error == "skip"
        workers = self.options.workers or threads_here()
        name, how = " ".join(filter(None, ("extract", self.dataset.name, part))), f"{workers} workers"
        with (
            ImageProgress(name, writer.total_rows, done, quiet=not show_progress) as progress,
            # Closed, so that workers have stopped when an error or Ctrl-C leaves this function.
            closing(self.compute_groups(pending, writer.numerics, skip)) as computed,
        ):
            for line in self.summary(writer, ", ".join(filter(None, (part, how)))) if show_progress else ():
                progress.on_note(line)
            for group in computed:
                progress.advance(group.stop - group.start)
                if group.ends_its_shard:
                    self._publish(writer, group.buffer)
        return {
            "seconds": round(time.monotonic() - begun, 3),
            "images": writer.done_rows - done,
            "workers": workers,
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

        workers, pinned = self.options.workers or threads_here(), self.backbone.device.type == "cuda"
        renderer = Renderer(self.dataset, self.transform, self.options.seed, skip=skip, pinned=pinned)
        groups = plan_groups(map(buffer, shards), facts["batch_size"])
        return compute(groups, renderer, self.backbone.forward(self.transform), workers)

    def finish(self, writer: StoreWriter, last_run: Mapping[str, Any]) -> Store:
        """Gives the store its final name; raises `DatasetError` or `StoreError` if it cannot be what it should."""
        for split, listed in self.dataset.splits.items():
            kept = np.setdiff1d(np.arange(len(listed)), writer.skipped[split])
            if lost := lost_classes(self.dataset, split, kept):
                raise DatasetError(
                    f"not one image of these classes of {split} can be read: {lost}",
                    where=self.dataset.root,
                    remedy="mend the images, then run the same command with --restart",
                )
        # By the clock of its file system: what changed since may not be what was read.
        begun = datetime.fromtimestamp((partial_path(writer.path) / PLAN).stat().st_mtime, UTC)
        facts: dict[str, Any] = {
            "tosca_cache": __version__,
            "begun": begun.isoformat(),
            "source": {**self.made_from, "data": self.dataset.listed_in or self.dataset.root},
            "relative_error_against_float32": self.relative_error,
            "machine": describe_machine(self.backbone.device),
            "last_run": dict(last_run),
        }
        rows, views = writer.taken
        if views:
            facts["reused"] = [{"store": recorded_source(writer.numerics), "rows": rows, "views": views}]
        return writer.finish(facts, left_out=self.dataset.left_out)

    def _facts(self) -> dict[str, Any]:
        """What the bits depend on; an unfinished store keeps to the batch size and the source that it was begun with.

        One of which all shards are there keeps to everything: it does not matter who finishes it.
        """
        begun = None if self.options.restart else read_unfinished(partial_path(self.path))
        if begun is not None and len(begun.done) == len(begun.shards):
            return dict(begun.plan.numerics)
        recorded = {} if begun is None else begun.plan.numerics
        facts = numerics(self.backbone, self.options.batch_size or recorded.get("batch_size"))
        if begun is not None:
            return facts | {key: recorded[key] for key in ("reused",) if key in recorded}
        sources = find_sources(self.root, self.dataset, self.spec, facts["device"]) if self.options.reuse else ()
        for source in sources:
            if source.size and source_agrees(self.dataset, self.backbone, source):
                digest = source.store.spec.digest()
                self._sources[digest] = source
                return facts | {"reused": [digest]}
        return facts

    @cached_property
    def _sources(self) -> dict[str | None, SourceStore | None]:
        """By their digests; kept, because finding all images in a store takes a while."""
        return {None: None}

    def _publish(self, writer: StoreWriter, buffer: ShardBuffer) -> None:
        shard = buffer.shard
        split, part = self.dataset.splits[shard.split], slice(shard.start, shard.stop)
        rows = {"features": buffer.features, "labels": split.labels[part], "domains": split.domains[part]}
        rows |= {"views": buffer.views, "paths": split.paths[part]}
        writer.publish(shard, rows, skipped=buffer.skipped, taken=buffer.reused)


class ImageProgress(LiveDisplay):
    """Counts images: a bar on a terminal, a plain line now and then elsewhere, with the images a second of this run.

    Arguments:
        what: is being done, to which dataset. total, done: images, and how many of them an earlier run has finished.
        quiet: show nothing.
    """

    def __init__(self, what: str, total: int, done: int, *, quiet: bool = False) -> None:
        console = make_console(stderr=True, quiet=quiet)
        self.what, self.total, self.done, self._before = one_line(what), total, done, done
        self._begun = self._said = time.monotonic()
        super().__init__(console, "images, {task.fields[rate]:.1f} images/s", TimeRemainingColumn())
        self._task = self.progress.add_task(self.what, total=total, completed=done, rate=0.0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if not self.progress.shown:
            self._say()

    def advance(self, images: int) -> None:
        """Some more images are through the backbone."""
        self.done += images
        self.progress.update(self._task, completed=self.done, rate=self._rate)
        if not self.progress.shown and time.monotonic() - self._said > INTERVAL:
            self._say()

    @property
    def _rate(self) -> float:
        """Images a second since this run began."""
        return (self.done - self._before) / max(time.monotonic() - self._begun, 1e-9)

    def _say(self) -> None:
        self._said = time.monotonic()
        left = (self.total - self.done) / self._rate if self._rate else 0.0
        ending = f", about {left / 60:.1f} min left" if left else ""
        self.on_note(f"{self.what}: {self.done}/{self.total} images, {self._rate:.1f} images/s{ending}")
