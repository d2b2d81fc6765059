"""Stage one: every image of a dataset, in all its views, once through the frozen backbone and into a store."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache import __version__
from tosca_cache.datasets.base import ImageDataset, IntArray
from tosca_cache.datasets.transforms import VIEW_COLUMNS, TransformSpec
from tosca_cache.devices import describe_machine
from tosca_cache.errors import DatasetError
from tosca_cache.extract.backbone import Backbone
from tosca_cache.extract.engine import Computed, compute, default_workers
from tosca_cache.extract.fingerprint import numerics, store_spec
from tosca_cache.extract.groups import Renderer, plan_groups
from tosca_cache.extract.options import ExtractOptions
from tosca_cache.extract.probe import probe_pixels, relative_error
from tosca_cache.extract.progress import ExtractionProgress
from tosca_cache.store import SPLITS, Shard, Store, StoreWriter, open_store, store_path

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
    options = options or ExtractOptions()
    transform = backbone.transform(options.normalise)
    spec = store_spec(dataset, backbone, transform, options)
    path = store_path(root, spec)
    if path.exists():
        return open_store(path)
    with StoreWriter.open(
        path,
        spec,
        class_names=dataset.class_names,
        domain_names=dataset.domain_names,
        rows={split: len(dataset.splits[split]) for split in SPLITS},
        views={split: 1 + options.counts[split] for split in SPLITS},
        numerics=numerics(path, backbone, options),
        restart=options.restart,
    ) as writer:
        return _Extraction(dataset, backbone, transform, options, writer).run(source or {}, show_progress)


@dataclass(frozen=True)
class _Extraction:
    """One run that works on a store until it is finished."""

    dataset: ImageDataset
    backbone: Backbone
    transform: TransformSpec
    options: ExtractOptions
    writer: StoreWriter

    def run(self, source: dict[str, Any], show_progress: bool) -> Store:
        begun, done_before = time.monotonic(), self.writer.done_rows
        error = relative_error(self.backbone, self.transform, probe_pixels(self.dataset, self.transform))
        with ExtractionProgress(
            self.dataset.name, self.writer.total_rows, done_before, quiet=not show_progress
        ) as progress:
            progress.announce(self._summary(done_before))
            if error:
                remedy = "; --precision fp32 avoids it" if error > NOTABLE_ERROR else ""
                progress.announce(f"relative error of the features against float32: {error:.1e}{remedy}")
            self._write_shards(self.writer.pending(), progress)
        check_classes_left(self.dataset, self.writer.skipped)
        facts = {
            "tosca_cache": __version__,
            "source": source | {"data": self.dataset.root},
            "relative_error_against_float32": error,
            "machine": describe_machine(self.backbone.device),
            "last_run": {
                "seconds": round(time.monotonic() - begun, 3),
                "images": self.writer.total_rows - done_before,
                "workers": self._workers,
            },
        }
        return self.writer.finish(facts)

    def _summary(self, done: int) -> str:
        backbone, numerics = self.backbone, self.writer.numerics
        return (
            f"{self.writer.path}: {self.writer.total_rows} images, {self.options.views} augmented views, "
            f"{backbone.name}.{backbone.tag} at {backbone.image_size} pixels in {backbone.precision} on "
            f"{numerics['device']}, batch {numerics['batch_size']}, {self._workers} workers"
            + (f"; {done} images are done already" if done else "")
        )

    @property
    def _workers(self) -> int:
        return self.options.workers or default_workers()

    def _write_shards(self, shards: list[Shard], progress: ExtractionProgress) -> None:
        if not shards:
            return
        options = self.options
        renderer = Renderer(
            self.dataset,
            self.transform,
            seed=options.seed,
            counts=options.counts,
            skip=options.on_error == "skip",
            pinned=self.backbone.device.type == "cuda",
        )
        groups = plan_groups(shards, options.counts, self.writer.numerics["batch_size"])
        forward = self.backbone.forward(self.transform)
        # Closed, so that workers have stopped when an error or Ctrl-C leaves this function.
        with closing(compute(groups, renderer, forward, self._workers)) as computed:
            for rows in _gather(computed, self.backbone.dim, progress):
                self._publish(rows)

    def _publish(self, rows: _ShardRows) -> None:
        split = self.dataset.splits[rows.shard.split]
        part = slice(rows.shard.start, rows.shard.stop)
        self.writer.publish(
            rows.shard,
            features=rows.features,
            labels=split.labels[part],
            domains=split.domains[part],
            views=rows.views,
            paths=split.paths[part],
            skipped=rows.skipped,
        )


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


@dataclass(frozen=True)
class _ShardRows:
    """The rows of a shard as they fill up: features [n, 1+V, d], views [n, 1+V, 6]."""

    shard: Shard
    features: NDArray[np.float32]
    views: IntArray
    skipped: dict[int, str] = field(default_factory=dict)

    @classmethod
    def empty(cls, first: Computed, dim: int) -> _ShardRows:
        shard, views = first.group.shard, first.views.shape[1]
        features = np.full((shard.rows, views, dim), np.nan, dtype=np.float32)
        return cls(shard, features, np.zeros((shard.rows, views, len(VIEW_COLUMNS)), dtype=np.int64))

    def put(self, computed: Computed) -> None:
        part = slice(computed.group.start - self.shard.start, computed.group.stop - self.shard.start)
        self.features[part] = computed.features.reshape(self.features[part].shape)
        self.views[part] = computed.views
        self.skipped.update(computed.skipped)


def _gather(computed: Iterable[Computed], dim: int, progress: ExtractionProgress) -> Iterator[_ShardRows]:
    """Whole shards from their groups, which come in order."""
    rows: _ShardRows | None = None
    for part in computed:
        rows = rows or _ShardRows.empty(part, dim)
        rows.put(part)
        progress.advance(part.group.rows)
        if part.group.stop == rows.shard.stop:
            yield rows
            rows = None
