"""Stores and files of arrays: features from elsewhere become a store, and a store becomes one file.

    import_file(Path("clip.npz"), ImportOptions(root, "birds", "clip"), {})
    import_arrays(ArraySource(({"features": ..., "labels": ...},), split), ...)  # arrays in memory
    export_store(store, Path("cub.h5"))

External files are not trusted: sizes are looked at before anything is read, nothing is unpickled, no link is followed.
"""

from tosca_cache.store.exchange.export import export_store
from tosca_cache.store.exchange.external import USUAL, as_values, open_external, parse_name
from tosca_cache.store.exchange.importing import (
    Imported,
    ImportOptions,
    digest_of,
    import_arrays,
    import_file,
)
from tosca_cache.store.exchange.rows import ArraySource

__all__ = [
    "USUAL",
    "ArraySource",
    "ImportOptions",
    "Imported",
    "as_values",
    "digest_of",
    "export_store",
    "import_arrays",
    "import_file",
    "open_external",
    "parse_name",
]
