"""Rows and views that source stores give to a store that is to be made, every byte of them checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tosca_cache.datasets.base import IntArray
from tosca_cache.datasets.transforms import VIEW_COLUMNS, view_seed
from tosca_cache.errors import StoreError
from tosca_cache.extract.shard_buffer import COMPUTED, Mask, ReusedRows, count
from tosca_cache.extract.sources import Match, SourceStore, Target, find_sources, other_numerics, warn, warn_damaged
from tosca_cache.store import SPLITS, Shard, Store, list_stores, open_store
from tosca_cache.store.arrays import read_small

SEED = VIEW_COLUMNS.index("seed")
SIZE = [VIEW_COLUMNS.index("height"), VIEW_COLUMNS.index("width")]  # in view 0: those of the image
FeaturesMatch = Callable[[SourceStore, Mapping[str, IntArray]], bool]


class Reuse:
    """The sources of a store in the order in which they are asked: who comes later gives what the earlier ones have not.

    wanted: the store. digests: the fingerprints of its sources as recorded, also of those that are gone.
    """

    def __init__(
        self, wanted: Target, source_stores: Sequence[SourceStore], digests: Sequence[str] | None = None
    ) -> None:
        self.wanted = wanted
        self.source_stores = tuple(source_stores)
        self.digests = (
            tuple(source_store.digest for source_store in source_stores) if digests is None else tuple(digests)
        )
        self._gone: set[int] = set()  # numbers of sources that were removed while they were asked

    @cached_property
    def source(self) -> dict[str, IntArray]:
        """Who is to give what, as long as nothing is damaged: per split [N, 1+V], see `Known.source`."""
        found = {}
        for split in SPLITS:
            views = self.wanted.views(split)
            found[split] = np.full((len(self.wanted.dataset.splits[split]), views), COMPUTED)
            for number, source_store in enumerate(self.source_stores):
                found[split][(found[split] == COMPUTED) & source_store.covers(split, views)] = number
        return found

    def rows_of(self, number: int) -> dict[str, IntArray]:
        """The rows of each split of which a source is to give something."""
        return {split: np.flatnonzero((source == number).any(axis=1)) for split, source in self.source.items()}

    def reused(self, shard: Shard) -> ReusedRows | None:
        """What the sources give to a shard; None if there are no sources. Warns of what is damaged, and leaves it out."""
        if not self.source_stores:
            return None
        spec, views = self.wanted.spec, self.wanted.views(shard.split)
        reused = ReusedRows.nothing(shard.rows, views, spec.backbone["dim"], spec.dtype)
        for number, source_store in enumerate(self.source_stores):
            for match in source_store.matches[shard.split]:
                wanted = reused.missing & match.covers(views, slice(shard.start, shard.stop))
                if wanted.any() and number not in self._gone:
                    try:
                        self._take(reused, number, shard, match, wanted)
                    except StoreError as error:
                        self._refused(number, error)
        return reused

    def lines(self, shards: Iterable[Shard]) -> list[str]:
        """What is taken for these shards from whom, and how much is left to compute; empty if there never was a source."""
        if not self.digests:
            return []
        sources = [self.source[shard.split][shard.start : shard.stop] for shard in shards]
        lines = []
        for number, source_store in enumerate(self.source_stores):
            rows, views = _sum(source == number for source in sources)
            newer = (
                f"; {source_store.newer} of its images have changed since and are not taken"
                if source_store.newer
                else ""
            )
            lines.append(f"taken from {source_store.name}: {views} views of {rows} images{newer}")
        for digest in sorted(set(self.digests) - {source_store.digest for source_store in self.source_stores}):
            lines.append(f"the store {digest[:10]}, from which some were taken when this one was begun, is gone")
        left = _sum(source == COMPUTED for source in sources)
        return [*lines, f"left to compute: {left[1]} views of {left[0]} images"]

    def _take(self, reused: ReusedRows, number: int, shard: Shard, match: Match, wanted: Mask) -> None:
        """Adds the wanted views [n, 1+V] of one match; raises `StoreError` before anything of what is damaged is added."""
        store = self.source_stores[number].store
        rows = np.flatnonzero(wanted.any(axis=1))
        theirs = match.rows[shard.start + rows]
        parameters = _view_parameters(store, match.split, theirs)[:, : match.views]
        self._check_seeds(store, shard, rows, parameters)
        features = store.features(match.split, theirs, slice(0, match.views))
        if not np.isfinite(features).all():
            raise StoreError("Features are not finite numbers.", where=store.path)
        # Of an image that sources have seen in different sizes, the first is believed, or the image if it is opened.
        same = reused.missing[rows].all(axis=1) | (parameters[:, 0, SIZE] == reused.views[rows, 0][:, SIZE]).all(axis=1)
        row, view = np.nonzero(wanted[rows][:, : match.views] & same[:, None])
        reused.features[rows[row], view] = features[row, view]
        reused.views[rows[row], view] = parameters[row, view]
        reused.source[rows[row], view] = number

    def _refused(self, number: int, error: StoreError) -> None:
        source_store = self.source_stores[number]
        if source_store.store.path.exists():
            warn_damaged(source_store.name, error)
        else:
            self._gone.add(number)
            warn(f"{source_store.name} is gone; what it would have given is computed")

    def _check_seeds(self, store: Store, shard: Shard, rows: IntArray, parameters: IntArray) -> None:
        """Raises `StoreError` unless views [n, k, 6] have the seeds that they would get here."""
        seed, paths = self.wanted.spec.views["seed"], self.wanted.dataset.splits[shard.split].paths
        for row, seeds in zip(rows.tolist(), parameters[:, :, SEED].tolist(), strict=True):
            path = paths[shard.start + row]
            if seeds != [0, *(view_seed(seed, shard.split, path, view) for view in range(1, len(seeds)))]:
                raise StoreError(f"Its views of {path!r} have other seeds than its fingerprint says.", where=store.path)


def choose_sources(root: Path, wanted: Target, features_match: FeaturesMatch) -> Reuse:
    """The sources below a root that give something: first those that computed alike, then those that have the most.

    agrees: whether the features of some of these rows of a source are what the backbone gives here; others are left out.
    """
    found = [(source_store, _size(wanted, source_store)) for source_store in find_sources(root, wanted)]
    found.sort(key=lambda item: (bool(other_numerics(item[0].store, wanted.numerics)), -item[1], item[0].digest))
    candidates = [source_store for source_store, size in found if size]
    tried: set[str] = set()
    while True:
        asked = Reuse(wanted, candidates)
        candidates = [
            source_store for n, source_store in enumerate(candidates) if any(map(len, asked.rows_of(n).values()))
        ]
        reuse = Reuse(wanted, candidates)
        doubtful = next((n for n, source_store in enumerate(candidates) if source_store.digest not in tried), None)
        if doubtful is None:
            break
        tried.add(candidates[doubtful].digest)
        if not features_match(candidates[doubtful], reuse.rows_of(doubtful)):
            del candidates[doubtful]
    for source_store, _ in found:
        if source_store.newer and source_store.digest not in reuse.digests:
            warn(
                f"nothing is taken from {source_store.name}: "
                f"{source_store.newer} of its images have changed since it was begun"
            )
    return reuse


def reopen_sources(root: Path, wanted: Target, digests: Sequence[str]) -> Reuse:
    """The recorded sources, as far as they are still there."""
    found = (
        {source_store.digest: source_store for source_store in find_sources(root, wanted, digests)} if digests else {}
    )
    return Reuse(wanted, [found[digest] for digest in digests if digest in found], digests)


def recorded_sources(numerics: Mapping[str, Any]) -> tuple[str, ...]:
    """The fingerprints of the sources that a store was begun with, in their order."""
    found = numerics.get("reused", ())
    return tuple(digest for digest in found if isinstance(digest, str)) if isinstance(found, list | tuple) else ()


def describe_taken(
    root: Path, taken: Mapping[str, tuple[int, int]], numerics: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """What was taken from which store, for the provenance; of stores that are still there also their name.

    taken: {digest: (rows, views)}. numerics: the own ones of who took; those of a source are named where they differ.
    """
    found = {s.spec.digest(): s.path for s in list_stores(root) if s.spec is not None and s.state == "finished"}
    described = []
    for digest, (rows, views) in taken.items():
        entry: dict[str, Any] = {"store": digest, "rows": rows, "views": views}
        with suppress(StoreError):
            if digest in found:
                entry |= {"name": found[digest].name, "numerics": other_numerics(open_store(found[digest]), numerics)}
        described.append(entry)
    return described


def _size(wanted: Target, source_store: SourceStore) -> int:
    return sum(int(source_store.covers(split, wanted.views(split)).sum()) for split in SPLITS)


def _sum(masks: Iterable[Mask]) -> tuple[int, int]:
    counts = [count(mask) for mask in masks]
    return sum(rows for rows, _ in counts), sum(views for _, views in counts)


def _view_parameters(store: Store, split: str, rows: IntArray) -> IntArray:
    """Parameters [n, 1+V, 6] of some rows, of which only those shards are read that have them."""
    layout = store.manifest.plan.layouts[split]
    found = np.empty((len(rows), layout.views, len(VIEW_COLUMNS)), dtype=np.int64)
    for index in np.unique(rows // layout.shard_rows).tolist():
        shard = layout.shard(split, index)
        here = rows // layout.shard_rows == index
        found[here] = read_small(store.path, split, "views", layout, shard.start, shard.stop)[rows[here] - shard.start]
    return found
