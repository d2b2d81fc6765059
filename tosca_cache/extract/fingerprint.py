"""How to extract, the fingerprint of the store that comes out, and what its last bits depend on besides."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le

from tosca_cache.config.checks import Count, one_of
from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.transforms import REFERENCE_SIZE, TransformSpec
from tosca_cache.devices import free_memory
from tosca_cache.errors import UsageError
from tosca_cache.extract.backbone import Backbone
from tosca_cache.extract.names import check_options, option
from tosca_cache.store import SPLITS, StoreSpec

PIXEL_BYTES = 4  # float32
_Views = Annotated[int, Ge(0), Le((1 << 16) - 1)]  # what a store can hold, besides the clean one


@dataclass(frozen=True)
class ExtractOptions:
    """How to extract.

    views, test_views: augmented views of a train and of a test row, besides view 0.
    seed: what the views' own seeds derive from.
    normalise: subtract the backbone's mean and divide by its std; otherwise inputs in [0, 1], as published.
    store_dtype: `float16` or `float32`.
    batch_size: views in one forward pass, at most; by device and image size if None.
    workers: threads; if None the cores of this process, or fewer if OMP_NUM_THREADS says so.
    on_error: what to do about an image that cannot be read.
    restart: throw an unfinished store away first.

    Raises `UsageError` for numbers and words that cannot be.
    """

    views: int = option(8, _Views)
    test_views: int = option(0, _Views)
    seed: int = option(1993, Annotated[int, Ge(0), Le(sys.maxsize)])
    normalise: bool = True
    store_dtype: str = option("float16", one_of(("float16", "float32")))
    batch_size: int | None = option(None, Count)
    workers: int | None = option(None, Count)
    on_error: str = option("fail", one_of(("fail", "skip")))
    restart: bool = False

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def counts(self) -> dict[str, int]:
        """Augmented views, a split."""
        return {"train": self.views, "test": self.test_views}


def store_spec(
    dataset: ImageDataset, backbone: Backbone, transform: TransformSpec, options: ExtractOptions
) -> StoreSpec:
    """The fingerprint of the store that these would give."""
    return StoreSpec(
        dataset={
            "name": dataset.name,
            "listing_digest": dataset.listing_digest(),
            "classes": len(dataset.class_names),
            "splits": {split: len(dataset.splits[split]) for split in SPLITS},
        },
        backbone={
            "name": backbone.name,
            "tag": backbone.tag,
            "weights_digest": backbone.weights_digest,
            "dim": backbone.dim,
        }
        | ({} if backbone.adapted is None else {"adapted": backbone.adapted.record()})
        | ({} if backbone.kept.plain else {"pieces": backbone.kept.names, "widths": backbone.widths}),
        transform=transform.to_dict() | ({} if dataset.decoding is None else dataset.decoding.to_record()),
        views={"count": options.views, "seed": options.seed, "test_count": options.test_views},
        precision=backbone.precision,
        dtype=options.store_dtype,
    )


def numerics(backbone: Backbone, batch_size: int | None = None) -> dict[str, Any]:
    """What the last bits depend on besides the fingerprint; batch_size: None for the default one.

    Raises `UsageError` for a batch whose pixels alone take more memory than is free.
    """
    batch_size = batch_size or default_batch_size(backbone)
    needed, free = batch_size * 3 * backbone.image_size**2 * PIXEL_BYTES, free_memory(backbone.device)
    if needed > free:
        raise UsageError(
            f"{batch_size} views of {backbone.image_size} pixels take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} are free",
            where="--batch-size",
            remedy="give fewer, or leave it out; a store that was begun so is begun anew by --restart",
        )
    facts: dict[str, Any] = {"batch_size": batch_size, "torch": str(torch.__version__)}
    if backbone.device.type == "cuda":
        return facts | {"device": torch.cuda.get_device_name(backbone.device)}
    capability = torch.backends.cpu.get_cpu_capability()
    return facts | {"device": backbone.device.type, "threads": 1, "cpu_capability": capability}


def default_batch_size(backbone: Backbone) -> int:
    """Views in one forward pass: few enough for a core's caches on a CPU, enough to fill a GPU; more of small images."""
    at_224, least, most = (18, 9, 288) if backbone.device.type == "cpu" else (288, 72, 2304)
    return min(max(round(at_224 * (REFERENCE_SIZE / backbone.image_size) ** 2), least), most)
