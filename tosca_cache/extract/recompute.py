"""From a finished store back to what it was made from: damaged shards computed again, and thumbnails of its images.

The fingerprint says what dataset and backbone were, the provenance where they lay. Nothing is computed before their digests
are found to be those of the fingerprint: features of other weights or images cannot be compared with the store's.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from tosca_cache.datasets import ImageDataset
from tosca_cache.datasets.decoding import MAX_PIXELS, Decoding
from tosca_cache.datasets.duplicates import DROP, KEEP
from tosca_cache.devices import describe_machine
from tosca_cache.errors import DatasetError, FingerprintMismatch, StoreError, ToscaError
from tosca_cache.extract.fingerprint import ExtractOptions, numerics
from tosca_cache.extract.names import LOCAL_TAG
from tosca_cache.extract.pieces import Kept
from tosca_cache.extract.pipeline import Extraction
from tosca_cache.extract.request import ExtractRequest, prepare
from tosca_cache.store import Manifest, Shard, Store
from tosca_cache.store.arrays import Rows, read_small
from tosca_cache.store.content import checked_rows
from tosca_cache.store.repair import StoreRepair, repairing
from tosca_cache.store.spec import canonical
from tosca_cache.store.verify import Progress

COMPUTED = frozenset(("features", "views"))  # the others are known from the dataset's index
THUMBNAIL, MOST_THUMBNAILS = 64, 200  # pixels; of a page
Elsewhere = Mapping[str, Any]  # dataset, data_root, weights: where they lie, if not where the provenance says


def request_again(store: Store, elsewhere: Elsewhere) -> ExtractRequest:
    """The request that a store was made by; raises `StoreError` for imported features, or if it does not say of what."""
    spec, made, said = store.spec, store.manifest.plan.numerics, store.provenance.get("source")
    if spec.imported:
        raise StoreError(
            "The features of this store were imported: there are no images and no backbone to compute them from.",
            remedy="Import the file again to have them anew.",
        )
    recorded: Mapping[str, Any] = said if isinstance(said, dict) else {}
    found = {"dataset": recorded.get("dataset") or recorded.get("data"), "data_root": recorded.get("data_root")}
    found["weights"] = None if recorded.get("weights") == "published" else recorded.get("weights")
    found |= {key: value for key, value in elsewhere.items() if value is not None}
    if found["dataset"] is None:
        raise StoreError(
            "The store does not say where its images lie.", where=store.path, remedy="Give their folder with --dataset."
        )
    adapted, tag, most = spec.backbone.get("adapted"), spec.backbone["tag"], recorded.get("max_pixels")
    name = spec.backbone["name"] if tag in ("", LOCAL_TAG) else f"{spec.backbone['name']}.{tag}"
    decoding, kept = Decoding.recorded_in(spec.transform), Kept.recorded([piece for piece, _ in spec.pieces])
    return ExtractRequest(
        dataset=str(found["dataset"]),
        root=store.path.parent,
        backbone=str(recorded.get("adapted")) if adapted else name,
        weights=None if found["weights"] is None else Path(found["weights"]),
        with_base=bool(adapted and adapted.get("with_base")),
        layers=kept.layers,
        pool=kept.pool,
        data_root=None if found["data_root"] is None else Path(found["data_root"]),
        test_fraction=recorded.get("test_fraction"),
        precision=spec.precision,
        normalise="timm" if spec.transform.get("normalize") == "timm" else "none",
        img_size=spec.transform.get("image_size"),
        device="cpu" if made.get("device") == "cpu" else "auto",
        orientation=decoding.orientation,
        background=decoding.background,
        depth=decoding.depth,
        max_pixels=most if type(most) is int and most > 0 else MAX_PIXELS,
        duplicates=DROP if recorded.get("duplicates") == DROP else KEEP,
        options=ExtractOptions(
            views=spec.views["count"],
            test_views=spec.views["test_count"],
            seed=spec.views["seed"],
            store_dtype=spec.dtype,
            batch_size=made.get("batch_size"),
        ),
    )


def extraction_again(store: Store, elsewhere: Elsewhere) -> Extraction:
    """The extraction that made a store, ready to compute some of it again.

    Raises `FingerprintMismatch`, naming every field with both values, if dataset or backbone are not those of the store;
    and what loading them raises.
    """
    extraction = prepare(request_again(store, elsewhere))
    differing = store.spec.differences(extraction.spec)
    if differing:
        raise FingerprintMismatch(
            "What there is now is not what the store was made from, so nothing was computed:\n"
            + "\n".join(
                f"    {name}: the store has {canonical(a)}, here it is {canonical(b)}" for name, a, b in differing
            ),
            where=store.path,
            remedy="Say where the right ones are: --weights FILE, --dataset NAME or FOLDER, --data-root DIR.",
        )
    return extraction


def other_numerics(store: Store, extraction: Extraction) -> list[str]:
    """What is different here of what the last bits depend on: one line each, with both values."""
    own, here = store.manifest.plan.numerics, numerics(extraction.backbone, extraction.options.batch_size)
    pairs = [(key, own.get(key), value) for key, value in here.items()]
    return [f"{key}: the store has {canonical(a)}, here it is {canonical(b)}" for key, a, b in pairs if a != b]


def repair_store(
    path: Path,
    elsewhere: Elsewhere | None = None,
    *,
    progress: Progress | None = None,
    on_shard: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[StoreRepair, list[str]]:
    """Mends what is damaged of a finished store: files from their copies, shards by computing them again.

    What is not damaged stays as it is. May be interrupted, and then run again.

    progress: of the verification. on_shard: called with the number of shards that have been computed again, and how many
    there are. Returns what was found and done, and what is different here of what the last bits depend on.

    Raises what `repairing` raises; `FingerprintMismatch` if dataset or backbone are not those of the store, and what
    loading them raises, after all files but the shards have been mended; `DatasetError` if an image is gone.
    """
    with repairing(Path(path), progress=progress) as repair:
        repair.mend_files()
        damaged = repair.found.damaged
        if not damaged:
            return repair, []
        store = Store(repair.path, repair.manifest)
        extraction = extraction_again(store, elsewhere or {})
        machine = describe_machine(extraction.backbone.device)
        for number, (shard, arrays) in enumerate(damaged.items()):
            on_shard(number, len(damaged))
            rows = _make_again(extraction, repair.manifest, shard, compute=bool(arrays & COMPUTED))
            if arrays & COMPUTED and "views" not in arrays:
                _refuse_other_images(store, shard, rows)
            repair.put(rows, shard, arrays, machine)
        on_shard(len(damaged), len(damaged))
        return repair, other_numerics(store, extraction)


def _make_again(extraction: Extraction, manifest: Manifest, shard: Shard, *, compute: bool) -> Rows:
    """A shard of a finished store as it was made; without `compute`, without features and views.

    Raises `DatasetError` if an image that the store has cannot be read any more, `StoreError` for features that cannot be
    stored.
    """
    split, rows, facts = extraction.dataset.splits[shard.split], slice(shard.start, shard.stop), manifest.plan.numerics
    listed = {"labels": split.labels[rows], "domains": split.domains[rows], "paths": split.paths[rows]}
    if not compute:
        return listed
    with closing(extraction.compute_groups([shard], facts, skip=True)) as computed:
        (buffer,) = (group.buffer for group in computed if group.ends_its_shard)
    skipped = {row.row: row.reason for row in manifest.skipped[shard.split] if shard.start <= row.row < shard.stop}
    for row in buffer.skipped.keys() - skipped.keys():
        raise DatasetError(
            f"An image that the store has cannot be read any more: {buffer.skipped[row]}",
            where=split.paths[row],
            remedy="Mend the image, then repair again; shards that are mended already stay so.",
        )
    made = listed | {"features": buffer.features, "views": buffer.views}
    return checked_rows(manifest.plan, shard, made, skipped)


def _refuse_other_images(store: Store, shard: Shard, rows: Rows) -> None:
    """View parameters say how large the images were; where they are not damaged, they must come out the same."""
    layout = store.manifest.plan.layouts[shard.split]
    if not np.array_equal(rows["views"], read_small(store.path, layout, shard, "views")):
        raise StoreError(
            f"Images of shard {shard.index} of split {shard.split} have other sizes than when the store was made.",
            where=store.path,
            remedy="Put the images back that it was made from, then repair again; or extract the store again.",
        )


class Thumbnails:
    """Small pictures of a store's images, by key, as data URIs for a page; at most so many, found by their paths."""

    def __init__(self, store: Store, dataset: ImageDataset, most: int = MOST_THUMBNAILS) -> None:
        self.photos: dict[str, str] = {}
        self._store, self._dataset, self._most = store, dataset, most
        self._rows = {s: {path: n for n, path in enumerate(split.paths)} for s, split in dataset.splits.items()}
        self._paths = {split: store.paths(split) for split in self._rows}

    @classmethod
    def of(cls, store: Store, most: int = MOST_THUMBNAILS) -> Thumbnails | None:
        """Those of a store; None if it does not say where its images lie, or if they are not there."""
        try:
            request = request_again(store, {})
            return cls(store, request.load_dataset(), most)
        except (ToscaError, OSError):
            return None

    @property
    def left(self) -> int:
        """How many more may be made."""
        return max(0, self._most - len(self.photos))

    def add(self, split: str, row: int, prefix: str = "") -> str:
        """The key of a row's thumbnail, which is made unless there are enough of them or it cannot be read."""
        key = f"{prefix}{self._store.spec.digest()[:8]}-{split}-{row}"
        place = self._rows[split].get(self._paths[split][row])
        if key not in self.photos and len(self.photos) < self._most and place is not None:
            with suppress(ToscaError, OSError):
                image, data = self._dataset.open(split, place).convert("RGB"), io.BytesIO()
                image.thumbnail((THUMBNAIL, THUMBNAIL))
                image.save(data, "JPEG", quality=80)
                self.photos[key] = f"data:image/jpeg;base64,{b64encode(data.getvalue()).decode()}"
        return key
