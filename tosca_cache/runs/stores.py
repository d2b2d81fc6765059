"""From a configuration to the store it wants."""

from __future__ import annotations

from pathlib import Path

from tosca_cache.config import TrainConfig
from tosca_cache.extract.names import resolve_backbone_name
from tosca_cache.store import Store, check_store, find_store, open_store


def wanted_store(config: TrainConfig, store: Path | None, root: Path) -> Store:
    """The store at `store`, or the one in `root`, that is what the configuration asks for.

    Raises `StoreError` if there is none, `FingerprintMismatch` naming every field in which it differs.
    """
    wanted: dict[str, object] = {
        "backbone.name": None if config.backbone is None else resolve_backbone_name(config.backbone),
        "transform.normalize": config.normalize,
        "transform.image_size": config.img_size,
        "views.count": config.views,
    }
    wanted = {field: value for field, value in wanted.items() if value is not None}
    if store is None:
        return find_store(root, config.dataset, wanted)
    opened = open_store(store)
    check_store(opened, {"dataset.name": config.dataset, **wanted})
    return opened
