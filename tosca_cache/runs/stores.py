"""From a configuration to the store it wants."""

from __future__ import annotations

from pathlib import Path

from tosca_cache.config import TrainConfig
from tosca_cache.extract.names import resolve_name
from tosca_cache.store import Store, check_store, find_store, open_store


def wanted_store(config: TrainConfig, store: Path | None, root: Path) -> Store:
    """The store at `store`, or the one in `root`, that is what the configuration asks for.

    Raises `StoreError` if there is none, `FingerprintMismatch` naming every field in which it differs.
    """
    wanted = wanted_fields(config)
    if store is None:
        return find_store(root, config.dataset, wanted)
    opened = open_store(store)
    check_store(opened, {"dataset.name": config.dataset} | wanted)
    return opened


def wanted_fields(config: TrainConfig) -> dict[str, object]:
    """Dotted fields of the fingerprint, and their values, that the configuration asks for."""
    wanted: dict[str, object] = {
        "transform.normalize": config.normalize,
        "transform.image_size": config.img_size,
        "views.count": config.views,
    }
    if config.backbone is not None:
        arch, tag = resolve_name(config.backbone)
        wanted |= {"backbone.name": arch, "backbone.tag": tag or None}
    return {field: value for field, value in wanted.items() if value is not None}
