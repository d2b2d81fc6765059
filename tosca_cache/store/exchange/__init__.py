"""Stores that travel: one HDF5 file of a whole store and back, and stores of features that were computed elsewhere.

    export_store(store, Path("cub.h5"))
    import_files(ImportRequest(Path("cub.h5"), root))                              # an exported store, as it was
    import_files(ImportRequest(Path("clip.npz"), root, Naming("birds", "clip")))   # arrays, guessed by their names
    import_given(Given({"train": Part(...), "test": Part(...)}), ...)              # arrays in memory

Files are hostile until proven otherwise: what parses them is another process (`tosca_cache.untrusted`), and what it hands
over is checked value by value before a store is made of it. form.py has the layout of the exported file; docs/exchange.md
says it to users.
"""

from tosca_cache.store.exchange.compose import Division
from tosca_cache.store.exchange.export import export_store
from tosca_cache.store.exchange.files import ImportRequest, Listener, import_files
from tosca_cache.store.exchange.foreign import Imported, Naming, digest_of, import_given
from tosca_cache.store.exchange.given import Features, Given, Part
from tosca_cache.store.exchange.limits import parse_bytes
from tosca_cache.store.exchange.roles import ROLES, Pair, Roles, parse_choice
from tosca_cache.store.exchange.values import as_values

__all__ = [
    "ROLES",
    "Division",
    "Features",
    "Given",
    "ImportRequest",
    "Imported",
    "Listener",
    "Naming",
    "Pair",
    "Part",
    "Roles",
    "as_values",
    "digest_of",
    "export_store",
    "import_files",
    "import_given",
    "parse_bytes",
    "parse_choice",
]
