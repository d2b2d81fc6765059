"""The feature store: the cached features of one dataset under one backbone and one transform.

    with StoreWriter.open(path, spec, ...) as writer:      # goes on where an earlier run was interrupted
        for shard in writer.pending():
            writer.publish(shard, {"features": ..., "labels": ..., ...})
        store = writer.finish(provenance)

    store = open_store(path)
    store.features("train", rows=slice(0, 100), views=0)   # [100, 1, d]

Several processes may write it together: `StoreWriter.open(..., part=Part(4, 1))`, then a writer without part finishes it.

See layout.py for what lies where, and spec.py for what a store says it is.
"""

from tosca_cache.store.catalogue import StoreSummary, check_store, find_store, list_stores, store_path
from tosca_cache.store.journal import StoreInProgress, read_unfinished
from tosca_cache.store.layout import SPLITS, Shard, partial_path
from tosca_cache.store.locks import Part, StoreBusy
from tosca_cache.store.manifest import Manifest, SkippedRow
from tosca_cache.store.reader import Store, open_store
from tosca_cache.store.spec import FORMAT, StoreSpec
from tosca_cache.store.writer import StoreWriter

__all__ = [
    "FORMAT",
    "SPLITS",
    "Manifest",
    "Part",
    "Shard",
    "SkippedRow",
    "Store",
    "StoreBusy",
    "StoreInProgress",
    "StoreSpec",
    "StoreSummary",
    "StoreWriter",
    "check_store",
    "find_store",
    "list_stores",
    "open_store",
    "partial_path",
    "read_unfinished",
    "store_path",
]
