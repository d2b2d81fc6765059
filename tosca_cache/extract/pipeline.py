"""Stage one: every image of a dataset, in all its views, once through the frozen backbone and into a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tosca_cache import __version__
from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.duplicates import find_duplicates
from tosca_cache.datasets.transforms import TransformSpec
from tosca_cache.devices import describe_machine
from tosca_cache.errors import DatasetError
from tosca_cache.extract.backbone import Backbone
from tosca_cache.extract.engine import compute, default_workers
from tosca_cache.extract.fingerprint import numerics, store_spec
from tosca_cache.extract.groups import Renderer, plan_groups
from tosca_cache.extract.options import ExtractOptions
from tosca_cache.extract.probe import batch_deviation, probe_pixels, relative_error
from tosca_cache.extract.progress import ExtractionProgress
from tosca_cache.extract.reuse import Reuse, choose_sources, describe_taken, recorded_sources, reopen_sources
from tosca_cache.extract.shard_buffer import ShardBuffer, gather
from tosca_cache.extract.source_check import features_match
from tosca_cache.extract.sources import Target
from tosca_cache.store import (
    SPLITS,
    Part,
    Store,
    StoreSpec,
    StoreWriter,
    open_store,
    partial_path,
    store_path,
    sweep_up,
)
from tosca_cache.store.manifest import PLAN

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
        sweep_up(extraction.path)
        return open_store(extraction.path)
    begun = time.monotonic()
    with extraction.open_writer() as writer:
        done, error = writer.done_rows, extraction.relative_error()
        with ExtractionProgress(dataset.name, writer.total_rows, done, quiet=not show_progress) as progress:
            progress.announce(extraction.summary(writer))
            progress.announce("\n".join(extraction.remarks()))
            progress.announce(describe_error(error))
            extraction.write_shards(writer, progress)
        last_run = {
            "seconds": round(time.monotonic() - begun, 3),
            "images": writer.total_rows - done,
            "workers": extraction.workers,
        }
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
        return self.options.workers or default_workers()

    def open_writer(self, part: Part | None = None, facts: Mapping[str, Any] | None = None) -> StoreWriter:
        """Begins the store or goes on with it; see `StoreWriter.open` for what it raises.

        facts: what the bits depend on; those of this process, and the stores that something is taken from, if None.
        """
        return StoreWriter.open(
            self.path,
            self.spec,
            class_names=self.dataset.class_names,
            domain_names=self.dataset.domain_names,
            rows={split: len(self.dataset.splits[split]) for split in SPLITS},
            views={split: 1 + self.options.counts[split] for split in SPLITS},
            numerics=facts or self._facts(),
            restart=self.options.restart,
            part=part,
        )

    def reuse(self, writer: StoreWriter) -> Reuse:
        """What other stores give: those that were chosen when this one was begun."""
        digests = recorded_sources(writer.numerics)
        if digests not in self._reuses:
            self._reuses[digests] = reopen_sources(self.root, self._wanted(writer.numerics), digests)
        return self._reuses[digests]

    def relative_error(self) -> float | None:
        """How far the features of a few images are from float32."""
        return relative_error(self.backbone, self.transform, self._probe)

    @cached_property
    def _probe(self) -> torch.Tensor:
        return probe_pixels(self.dataset, self.transform)

    def summary(self, writer: StoreWriter, how: str | None = None) -> str:
        """Which images become what, how, and where; then a line for every store that something is taken from."""
        backbone, facts, done = self.backbone, writer.numerics, writer.done_rows
        first = (
            f"{writer.path}: {writer.total_rows} images, {self.options.views} augmented views, "
            f"{backbone.name}.{backbone.tag} at {backbone.image_size} pixels in {backbone.precision} on "
            f"{facts['device']}, batch {facts['batch_size']}, {how or f'{self.workers} workers'}"
            + (f"; {done} images are done already" if done else "")
        )
        return "\n".join([first, *self.reuse(writer).lines(writer.pending())])

    def remarks(self) -> list[str]:
        """What the user may not know of the images: what is no row, and what is there more than once.

        Looking for the latter takes a while where there are many files of the same size.
        """
        parts = [
            f"{why}: {len(paths)} ({paths[0]}{', ...' if len(paths) > 1 else ''})"
            for why, paths in self.dataset.left_out.items()
        ]
        lines = [f"left out: {'; '.join(parts)}"] if parts else []
        if self.dataset.unchecked:
            found = find_duplicates(self.dataset).lines()
            lines += [*found, "--duplicates drop leaves them out, --duplicates fail refuses them"] if found else []
        return lines

    def renderer(self, dataset: ImageDataset, *, skip: bool) -> Renderer:
        """What makes the views of a dataset's images; skip: leave out those that cannot be read, instead of raising."""
        options, pinned = self.options, self.backbone.device.type == "cuda"
        return Renderer(dataset, self.transform, seed=options.seed, counts=options.counts, skip=skip, pinned=pinned)

    def write_shards(
        self, writer: StoreWriter, progress: ExtractionProgress, stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Computes and publishes the writer's pending shards, until all are done or `stop`, asked after each, says so."""
        shards = writer.pending()
        if not shards:
            return
        renderer = self.renderer(self.dataset, skip=self.options.on_error == "skip")
        reuse = self.reuse(writer)
        groups = plan_groups(shards, self.options.counts, writer.numerics["batch_size"], reuse.reused)
        forward = self.backbone.forward(self.transform)
        # Closed, so that workers have stopped when an error or Ctrl-C leaves this function.
        with closing(compute(groups, renderer, forward, self.workers)) as computed:
            for part, rows in gather(computed, self.backbone.dim):
                progress.advance(part.group.rows)
                if rows is not None:
                    self._publish(
                        writer, rows, rows.taken([source_store.digest for source_store in reuse.source_stores])
                    )
                    if stop():
                        return

    def finish(
        self, writer: StoreWriter, source: Mapping[str, Any], error: float | None, last_run: Mapping[str, Any]
    ) -> Store:
        """Gives the store its final name; raises `DatasetError` or `StoreError` if it cannot be what it should."""
        check_classes_left(self.dataset, writer.skipped)
        facts: dict[str, Any] = {
            "tosca_cache": __version__,
            "begun": _begun(writer),
            "source": {**source, "data": self.dataset.listed_in or self.dataset.root},
            "relative_error_against_float32": error,
            "relative_deviation_across_batch_sizes": self._batch_deviation(writer.numerics),
            "machine": describe_machine(self.backbone.device),
            "last_run": dict(last_run),
        }
        if writer.taken:
            facts["reused"] = describe_taken(self.root, writer.taken, writer.numerics)
        notes = writer.notes
        return writer.finish(facts | {"parts": notes} if notes else facts, left_out=self.dataset.left_out)

    def _batch_deviation(self, made: Mapping[str, Any]) -> dict[str, Any] | None:
        """Measured where the features were computed; None for who only joins what another kind of device has made."""
        if made["device"] != describe_machine(self.backbone.device)["device"]:
            return None
        return batch_deviation(self.backbone, self.transform, self._probe, made["batch_size"])

    def _facts(self) -> dict[str, Any]:
        """What the bits depend on; an unfinished store keeps to the sources that it was begun with, or to none."""
        facts = numerics(self.path, self.backbone, self.options)
        if not self.options.reuse:
            return facts
        recorded = None if self.options.restart else StoreWriter.recorded_numerics(self.path)
        if recorded is None:
            agreeing = partial(features_match, self.dataset, self.backbone, self.transform)
            reuse = choose_sources(self.root, self._wanted(facts), agreeing)
            self._reuses[reuse.digests] = reuse
            digests = reuse.digests
        else:
            digests = recorded_sources(recorded)
        return facts | ({"reused": list(digests)} if digests else {})

    @cached_property
    def _reuses(self) -> dict[tuple[str, ...], Reuse]:
        """Kept, because finding all images in all sources takes a while."""
        return {}

    def _wanted(self, facts: Mapping[str, Any]) -> Target:
        return Target(self.dataset, self.spec, facts)

    def _publish(self, writer: StoreWriter, rows: ShardBuffer, taken: Mapping[str, tuple[int, int]]) -> None:
        split = self.dataset.splits[rows.shard.split]
        part = slice(rows.shard.start, rows.shard.stop)
        writer.publish(
            rows.shard,
            features=rows.features,
            labels=split.labels[part],
            domains=split.domains[part],
            views=rows.views,
            paths=split.paths[part],
            skipped=rows.skipped,
            taken=taken,
        )


def _begun(writer: StoreWriter) -> str:
    """When the store was begun, by the clock of its file system: what changed since may not be what was read."""
    try:
        seconds = (partial_path(writer.path) / PLAN).stat().st_mtime
    except OSError:
        seconds = time.time()
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def describe_error(error: float | None) -> str:
    """One line about `Extraction.relative_error`; empty if there is nothing to say."""
    if not error:
        return ""
    remedy = "; --precision fp32 avoids it" if error > NOTABLE_ERROR else ""
    return f"relative error of the features against float32: {error:.1e}{remedy}"


def check_classes_left(dataset: ImageDataset, skipped: Mapping[str, Sequence[int]]) -> None:
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
