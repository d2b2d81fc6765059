"""Computing parts of a finished store again: a few views to compare them, or whole shards in place of damaged ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tosca_cache.datasets.base import ImageDataset, IntArray
from tosca_cache.datasets.transforms import image_views, open_image, render
from tosca_cache.errors import DatasetError, ImageError, StoreError
from tosca_cache.extract.engine import compute
from tosca_cache.extract.groups import plan_groups
from tosca_cache.extract.pipeline import Extraction
from tosca_cache.extract.probe import TOLERANCE, deviations
from tosca_cache.extract.reuse import recorded_sources, reopen_sources
from tosca_cache.extract.shard_buffer import ShardBuffer, gather
from tosca_cache.extract.sources import Target
from tosca_cache.seeds import numpy_generator
from tosca_cache.store import SPLITS, Manifest, Shard, Store
from tosca_cache.store.arrays import ShardRows
from tosca_cache.store.content import checked_rows
from tosca_cache.store.layout import SplitLayout


@dataclass(frozen=True)
class Rechecked:
    """One view that was computed again.

    deviation: ||recomputed - stored|| / ||stored|| of its feature in the stored dtype; None if it could not be compared.
    problem: what is wrong; empty if the deviation is within the tolerance.
    """

    split: str
    row: int
    view: int
    path: str
    deviation: float | None
    problem: str

    def __str__(self) -> str:
        return f"row {self.row}, view {self.view} of split {self.split} ({self.path}): {self.problem or self.deviation}"


def recheck(extraction: Extraction, store: Store, count: int, seed: int) -> list[Rechecked]:
    """Takes `count` random rows and views through the backbone again (all of them if there are not as many).

    Their places follow from `seed`. Compared are the parameters of the views, which must be equal, and the features, within
    `TOLERANCE` of the store's precision. Raises `StoreError` if what is to be compared is damaged.
    """
    chosen = _choose(store, count, seed)
    batch = max(1, int(store.manifest.plan.numerics.get("batch_size") or 1))
    parts = [chosen[start : start + batch] for start in range(0, len(chosen), batch)]
    forward = extraction.backbone.forward(extraction.transform)
    return [found for part in parts for found in _recheck_batch(extraction, store, part, forward)]


def _choose(store: Store, count: int, seed: int) -> list[tuple[str, int, int]]:
    sizes = {split: store.rows(split) * store.views(split) for split in SPLITS}
    total = sum(sizes.values())
    numbers = np.sort(numpy_generator(seed, "verify").choice(total, min(count, total), replace=False)).tolist()
    places = []
    for number in numbers:
        split = "train" if number < sizes["train"] else "test"
        row, view = divmod(number - (0 if split == "train" else sizes["train"]), store.views(split))
        places.append((split, row, view))
    return places


def _recheck_batch(
    extraction: Extraction, store: Store, places: Sequence[tuple[str, int, int]], forward: Any
) -> Iterator[Rechecked]:
    transform, pixels, found = extraction.transform, [], []
    for split, row, view in places:
        path = store.paths(split)[row]
        found.append(Rechecked(split, row, view, path, None, ""))
        number = extraction.dataset.splits[split].paths.index(path)
        try:
            image = open_image(transform, extraction.dataset, split, number)
        except ImageError as error:
            found[-1] = replace(found[-1], problem=f"its image cannot be read any more: {error.problem}")
            continue
        seed = extraction.options.seed
        made = image_views(transform, image, seed=seed, split=split, path=path, count=store.views(split) - 1)[view]
        if list(made) != store.view_parameters(split)[row, view].tolist():
            found[-1] = replace(
                found[-1], problem="the view has other parameters: it is another image, or of another size"
            )
            continue
        pixels.append(render(transform, image, made))
    again = iter(list(forward(torch.from_numpy(np.stack(pixels))).cpu().numpy()) if pixels else [])
    for one in found:
        yield one if one.problem else _compared(store, one, next(again))


def _compared(store: Store, one: Rechecked, feature: NDArray[np.float32]) -> Rechecked:
    stored = store.features(one.split, [one.row], one.view)[0, 0]
    (deviation,) = deviations(feature.astype(store.dtype)[None], stored[None]).tolist()
    tolerance = TOLERANCE[store.spec.precision]
    problem = "" if deviation <= tolerance else f"deviates by {deviation:.2e}, more than {tolerance:.0e}"
    return replace(one, deviation=deviation, problem=problem)


@dataclass(frozen=True)
class Recomputation:
    """Computes whole shards of a finished store again, in the groups in which they were computed at first.

    dataset: with the listing of the store. extraction: None if only what is listed is asked for. manifest: the store's. A
    store that left out rows has other shards than its extraction had, whose groups are wanted.
    """

    dataset: ImageDataset
    manifest: Manifest
    extraction: Extraction | None = None

    def listed(self, shard: Shard) -> ShardRows:
        """What the listing says of a shard: labels, domains and paths; features and views are empty."""
        split, rows = self.dataset.splits[shard.split], self._listing_rows(shard)
        empty: Any = np.empty(0)
        paths = tuple(split.paths[row] for row in rows.tolist())
        return ShardRows(empty, split.labels[rows], split.domains[rows], empty, paths)

    def computed(self, shard: Shard) -> ShardRows:
        """A whole shard of the store, as it was made.

        Raises `ImageError` if an image that the store has cannot be read any more, `StoreError` for features that cannot
        be stored.
        """
        layout, wanted = self._original(shard.split), self._listing_rows(shard)
        first, last = int(wanted[0]) // layout.shard_rows, int(wanted[-1]) // layout.shard_rows
        shards = [layout.shard(shard.split, index) for index in range(first, last + 1)]
        features, views = [], []
        for rows in self._compute(shards):
            here = wanted[(wanted >= rows.shard.start) & (wanted < rows.shard.stop)] - rows.shard.start
            self._refuse_unreadable(rows, here)
            features.append(rows.features[here])
            views.append(rows.views[here])
        reused = self.listed(shard)
        return checked_rows(
            self.manifest.plan,
            shard,
            features=np.concatenate(features),
            labels=reused.labels,
            domains=reused.domains,
            views=np.concatenate(views),
            paths=reused.paths,
            skipped={},
        )

    def _compute(self, shards: Sequence[Shard]) -> Iterator[ShardBuffer]:
        extraction = self.extraction
        assert extraction is not None  # who has none asks for `listed` only
        options = extraction.options
        renderer = extraction.renderer(self._readable, skip=True)  # which of them may be is seen to when they come
        wanted = Target(self.dataset, self.manifest.plan.spec, self.manifest.plan.numerics)
        reuse = reopen_sources(extraction.root, wanted, recorded_sources(self.manifest.plan.numerics))
        groups = plan_groups(shards, options.counts, self._batch_size, reuse.reused)
        forward = extraction.backbone.forward(extraction.transform)
        with closing(compute(groups, renderer, forward, extraction.workers)) as computed:
            for _, rows in gather(computed, extraction.backbone.dim):
                if rows is not None:
                    yield rows

    @cached_property
    def _batch_size(self) -> int:
        found = self.manifest.plan.numerics.get("batch_size")
        if type(found) is not int or found < 1:
            raise StoreError("The store does not say in which batches it was computed.", remedy="Extract it again.")
        return found

    @cached_property
    def _readable(self) -> ImageDataset:
        """The dataset in which images that the store left out cannot be read, even if they can be by now."""
        left_out = {(split, row.row) for split, rows in self.manifest.skipped.items() for row in rows}

        def opener(split: str, row: int) -> Image.Image:
            if (split, row) in left_out:
                raise ImageError("it was left out of the store")
            return self.dataset.opener(split, row)

        return replace(self.dataset, opener=opener)

    @cached_property
    def _kept(self) -> dict[str, IntArray]:
        rows = {split: np.arange(len(self.dataset.splits[split])) for split in SPLITS}
        return {s: np.setdiff1d(rows[s], [row.row for row in self.manifest.skipped[s]]) for s in SPLITS}

    def _listing_rows(self, shard: Shard) -> IntArray:
        return self._kept[shard.split][shard.start : shard.stop]

    def _original(self, split: str) -> SplitLayout:
        """The shards in which a split was computed, before rows were left out: those of a dataset of its size."""
        layout = self.manifest.plan.layouts[split]
        if not any(self.manifest.skipped.values()):
            return layout
        return SplitLayout.plan(len(self.dataset.splits[split]), layout.views, layout.dim, layout.dtype)

    def _refuse_unreadable(self, rows: ShardBuffer, wanted: IntArray) -> None:
        for row, reason in rows.skipped.items():
            if row - rows.shard.start in wanted:
                path = self.dataset.splits[rows.shard.split].paths[row]
                raise DatasetError(
                    f"An image that the store has cannot be read any more: {reason}",
                    where=path,
                    remedy="Mend the image, then repair again; shards that are mended already stay so.",
                )
