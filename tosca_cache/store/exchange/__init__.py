"""Stores and files of arrays: features from elsewhere become a store, and a store becomes one file.

    import_files(ImportRequest(Path("clip.npz"), root, StoreName("birds", "clip")))
    import_arrays(ArraySource((Table(...), Table(...))), ...)                    # arrays in memory: train, test
    export_store(store, Path("cub.h5"))

External files are not trusted: sizes are looked at before anything is read, nothing is unpickled, no link is followed.
"""

from tosca_cache.store.exchange.columns import USUAL, parse_name
from tosca_cache.store.exchange.compose import ArraySource, SplitRule, Table
from tosca_cache.store.exchange.export import export_store
from tosca_cache.store.exchange.external import as_values, open_external, parse_bytes
from tosca_cache.store.exchange.importing import (
    Imported,
    ImportRequest,
    StoreName,
    digest_of,
    import_arrays,
    import_files,
)

__all__ = [
    "USUAL",
    "ArraySource",
    "ImportRequest",
    "Imported",
    "SplitRule",
    "StoreName",
    "Table",
    "as_values",
    "digest_of",
    "export_store",
    "import_arrays",
    "import_files",
    "open_external",
    "parse_bytes",
    "parse_name",
]
