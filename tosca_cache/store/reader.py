"""Opening a finished store and reading from it: whole arrays or any rows and views, never a byte that fails its check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import StoreError
from tosca_cache.shown import Shown
from tosca_cache.store.arrays import IntArray, damaged, read_small, wrong_metadata, wrong_object
from tosca_cache.store.chunks import Selection, positions, read_features
from tosca_cache.store.content import check_path
from tosca_cache.store.disk import repair_hint, storage
from tosca_cache.store.layout import ARRAYS, SPLITS, SplitLayout, partial_path
from tosca_cache.store.manifest import MANIFEST, MANIFEST_COPY, Manifest, load_manifest, read_provenance
from tosca_cache.store.spec import StoreSpec


@dataclass(frozen=True, repr=False)
class Store(Shown):
    """A finished store, whose manifest and object sizes have been checked.

    path: its folder. manifest: what it says about itself.

    Every method that reads raises `StoreError`, naming split and shard, for what is missing, cut or damaged. Splits are
    `train` and `test`; another name is a `KeyError`.
    """

    path: Path
    manifest: Manifest

    def facts(self) -> dict[str, Any]:
        """What it is."""
        views = "/".join(str(self.views(split)) for split in SPLITS)
        domains = {"domains": len(self.domain_names)} if len(self.domain_names) > 1 else {}
        return {
            "dataset": self.spec.dataset["name"],
            **{split: self.rows(split) for split in SPLITS},
            "classes": len(self.class_names),
            **domains,
            "views": views,
            "dim": self.dim,
            "dtype": self.dtype.name,
            "backbone": f"{self.spec.backbone['name']}.{self.spec.backbone.get('tag', '')}",
            "path": str(self.path),
        }

    @property
    def spec(self) -> StoreSpec:
        """The fingerprint."""
        return self.manifest.plan.spec

    @property
    def class_names(self) -> tuple[str, ...]:
        """What labels index."""
        return self.manifest.plan.class_names

    @property
    def domain_names(self) -> tuple[str, ...]:
        """What domains index."""
        return self.manifest.plan.domain_names

    @property
    def dim(self) -> int:
        """Width d of a feature."""
        return int(self.spec.backbone["dim"])

    @property
    def dtype(self) -> np.dtype[Any]:
        """How features are stored: float16 or float32."""
        return np.dtype(self.spec.dtype)

    @property
    def provenance(self) -> dict[str, Any]:
        """Where and when it was made, and how long it took; empty if that file cannot be read, which `verify` says."""
        return read_provenance(self.path)[0]

    def rows(self, split: str) -> int:
        """N, the rows of a split; those that were skipped are not among them."""
        return self.manifest.rows(split)

    def views(self, split: str) -> int:
        """1+V, the views of a row, the clean one included."""
        return self._layout(split).views

    def plot(self, by: str = "class") -> Any:
        """A map of the features as an Altair chart, an image a point, coloured by `class`, `domain` or `split`.

        Raises `UsageError` if Altair is not installed, or for another word.
        """
        from tosca_cache.feature_map import chart

        return chart(self, by)

    def zarr(self) -> Any:
        """zarr's own group, read-only; every chunk that it reads is checked. Skipped rows are there, of NaN."""
        import zarr

        return zarr.open_group(str(self.path), mode="r")

    def features(
        self, split: str, rows: Selection = None, views: Selection | int = None, *, pieces: str = "all"
    ) -> NDArray[Any]:
        """Features [n, v, d] in the stored dtype, C-contiguous; see `chunks.read_features`.

        rows, views: None for all, a slice, a mask or whole numbers in any order; `views` may be one number (v = 1).
        pieces: `all`, or the `last`, which is what most learners use; see `StoreSpec.pieces`.
        """
        columns = self.spec.columns(pieces)
        if self.manifest.skipped[split]:
            rows = self.places(split, rows)
        found = read_features(self.path, split, self._layout(split), rows, views)
        return np.ascontiguousarray(found[..., columns]) if columns.start else found

    def labels(self, split: str) -> IntArray:
        """Class index of every row, [N]."""
        return self._small(split, "labels", len(self.class_names))

    def domains(self, split: str) -> IntArray:
        """Domain index of every row, [N]."""
        return self._small(split, "domains", len(self.domain_names))

    def view_parameters(self, split: str) -> IntArray:
        """Seed, top, left, height, width and flip of every view, [N, 1+V, 6]."""
        return self._small(split, "views")

    def paths(self, split: str) -> tuple[str, ...]:
        """Path of every row's image, relative to the dataset's folder and staying in it."""
        found = tuple(self._small(split, "paths").tolist())
        for path in found:
            check_path(path)
        return found

    def places(self, split: str, rows: Selection = None) -> IntArray:
        """Where rows stand in the arrays of a split."""
        kept = self.manifest.kept[split]
        return kept[positions(rows, len(kept), "row")]

    def _layout(self, split: str) -> SplitLayout:
        return self.manifest.plan.layouts[split]

    def _small(self, split: str, array: str, stop: int | None = None) -> NDArray[Any]:
        layout = self._layout(split)
        found = np.empty((layout.rows, *layout.tail(array)), object if array == "paths" else np.int64)
        for shard in layout.iterate(split):
            own = found[shard.start : shard.stop]
            own[:] = read_small(self.path, layout, shard, array)
            if stop is not None and not 0 <= own.min() <= own.max() < stop:
                raise damaged(self.path, shard, array, f"holds numbers outside 0 to {stop - 1}")
        return found[self.manifest.kept[split]] if self.manifest.skipped[split] else found


def open_store(path: str | Path) -> Store:
    """Opens a finished store.

    Checks the manifest, that every object is there with its recorded size, and zarr's metadata; the features' and other
    arrays' bytes are checked when they are read. Raises `StoreError` for a store that is missing, unfinished or damaged.
    """
    path = Path(path)
    refuse_unfinished(path)
    manifest = load_manifest(path / MANIFEST)
    with storage(path):
        refuse_links(path)
        for shard, records in manifest.shards.items():
            if wrong := wrong_object(path, shard, records):
                raise damaged(path, shard, *wrong)
        for key, what in wrong_metadata(path, manifest.plan.layouts):
            raise StoreError(
                f"The store is damaged: an object of zarr's metadata {what}.",
                where=path / key,
                remedy=repair_hint(path),
            )
    return Store(path, manifest)


FOLDERS = frozenset((*SPLITS, *(f"{split}/{array}" for split in SPLITS for array in ARRAYS)))


def linked_folders(folder: Path) -> set[str]:
    """The splits and arrays, as `train` or `train/labels`, whose folders are links."""
    return {key for key in FOLDERS if (folder / key).is_symlink()}


def refuse_links(path: Path) -> None:
    """Raises `StoreError` if a folder of a store is a link."""
    if linked := linked_folders(path):
        raise StoreError(
            "A folder within the store is a link.",
            where=path / min(linked),
            remedy="Put the real folder there, or remove the link; then run this again.",
        )


def refuse_unfinished(path: Path) -> None:
    """Raises `StoreError` unless there is a finished store, whatever state it is in."""
    if not path.name.endswith(".partial") and any((path / name).exists() for name in (MANIFEST, MANIFEST_COPY)):
        return
    unfinished = path if path.name.endswith(".partial") else partial_path(path)
    if unfinished.is_dir():
        raise StoreError(
            "This store is unfinished: its extraction was interrupted, or is still running.",
            where=unfinished,
            remedy="Run the same `tosca extract` command again; what is done is kept.",
        )
    raise StoreError(
        "There is no feature store here." if path.is_dir() else "This feature store does not exist.",
        where=path,
        remedy="See `tosca cache ls` for the stores there are, or make one with `tosca extract`.",
    )
