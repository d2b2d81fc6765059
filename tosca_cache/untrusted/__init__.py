"""Reading arrays from files that nobody vouches for (.npz, .h5), in a process of its own.

    with open_untrusted(path) as file:
        file.arrays["features"]              # name, shape, dtype; nothing but headers has been read
        file.read("features", 0, 100)        # rows

The process that asks never parses the file: a child does (serve.py), with little memory, no right to write or open files,
and a clock that runs against it. libhdf5 is C code that a crafted file can crash or keep busy for ever; whatever
happens to the child becomes one `StoreError` here. What the child says is believed as little as the file: names, shapes
and lengths are checked again (child.py).

Imports numpy and h5py only, so that a child starts in a tenth of a second.
"""

from tosca_cache.untrusted.child import Reader, UntrustedFile, open_regular, open_untrusted
from tosca_cache.untrusted.headers import Header

__all__ = ["Header", "Reader", "UntrustedFile", "open_regular", "open_untrusted"]
