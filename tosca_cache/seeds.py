"""Randomness comes from named seeds: a user's seed and the name of what it is for give one independent stream each.

Named streams make results independent of the order in which parts of the program draw numbers: the batch order of task 7
does not change when the initialisation of task 3 does.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called `names` under the user's `seed` (BLAKE2b of both, stable across machines)."""
    text = "/".join(str(part) for part in (seed, *names))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """NumPy generator of the stream called `names` under the user's `seed`."""
    return np.random.default_rng(derive_seed(seed, *names))
