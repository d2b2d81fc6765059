"""Stores and files of arrays: features from elsewhere become a store, and a store becomes one file.

    import_files(ImportRequest(Path("clip.npz"), root, StoreName("birds", "clip")))
    import_arrays(ArraySource({"train": Part(...), "test": Part(...)}), ...)     # arrays in memory
    export_store(store, Path("cub.h5"))

External files are not trusted: sizes are looked at before anything is read, nothing is unpickled, no link is followed.
"""

from tosca_cache.store.exchange.columns import USUAL, Columns, parse_name
from tosca_cache.store.exchange.compose import ArraySource, Part, SplitRule
from tosca_cache.store.exchange.export import export_store
from tosca_cache.store.exchange.external import as_values, open_external, parse_bytes
from tosca_cache.store.exchange.importing import (
    Imported,
    ImportRequest,
    Listener,
    StoreName,
    digest_of,
    import_arrays,
    import_files,
)

__all__ = [
    "USUAL",
    "ArraySource",
    "Columns",
    "ImportRequest",
    "Imported",
    "Listener",
    "Part",
    "SplitRule",
    "StoreName",
    "as_values",
    "digest_of",
    "export_store",
    "import_arrays",
    "import_files",
    "open_external",
    "parse_bytes",
    "parse_name",
]
