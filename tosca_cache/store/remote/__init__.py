"""Roots on S3, Google's cloud storage or in memory: `s3://BUCKET/FOLDER`, `gs://BUCKET/FOLDER`, `memory://FOLDER`.

A remote root is worked on through a local mirror, which is an ordinary root that knows its address (mirror.py). What is
remote is a plain zarr 3 group a store, with the same objects as a local one. Readers fetch a store before they open it
(fetch.py); writers hold a lease (lease.py), go on from what is remote, and upload each shard when it is done (upload.py);
the manifest is written last, and makes it a store (finish.py).

Nothing here imports fsspec, or the libraries of s3:// and gs://, before the first object is asked for.
"""

from tosca_cache.store.remote.failures import Unreachable
from tosca_cache.store.remote.fetch import arrived
from tosca_cache.store.remote.finish import settle
from tosca_cache.store.remote.mirror import Mirror, local_path, local_root, mirror_of, shown
from tosca_cache.store.remote.remove import delete_store, sizes
from tosca_cache.store.remote.state import Seen, look
from tosca_cache.store.remote.upload import Uploader, remote_numerics
from tosca_cache.store.remote.url import is_address

__all__ = [
    "Mirror",
    "Seen",
    "Unreachable",
    "Uploader",
    "arrived",
    "delete_store",
    "is_address",
    "local_path",
    "local_root",
    "look",
    "mirror_of",
    "remote_numerics",
    "settle",
    "shown",
    "sizes",
]
