"""What an extraction says it is: the fingerprint of its store, and what the last bits depend on besides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.transforms import REFERENCE_SIZE, TransformSpec
from tosca_cache.devices import free_memory
from tosca_cache.errors import UsageError
from tosca_cache.extract.backbone import Backbone
from tosca_cache.extract.options import ExtractOptions
from tosca_cache.store import SPLITS, StoreSpec, StoreWriter

PIXEL_BYTES = 4  # float32


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
        },
        transform=transform.to_dict() | ({} if dataset.decoding is None else dataset.decoding.to_record()),
        views={"count": options.views, "seed": options.seed, "test_count": options.test_views},
        precision=backbone.precision,
        dtype=options.store_dtype,
    )


def numerics(path: Path, backbone: Backbone, options: ExtractOptions) -> dict[str, Any]:
    """What the last bits depend on besides the fingerprint; an unfinished store keeps its batch size if none is given.

    Raises `UsageError` for a batch whose pixels alone take more memory than is free.
    """
    recorded = None if options.restart else StoreWriter.recorded_numerics(path)
    batch_size = options.batch_size or (recorded or {}).get("batch_size") or default_batch_size(backbone)
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
