"""LoRanPAC (ICLR 2025): RanPAC's least squares on many more random features, of which a truncated SVD is kept.

h = ReLU(x R), R ~ N(0, 1); scores h^T U diag(1 / s^2) U^T Q with the truncated singular value decomposition U, s of
all h so far and Q = sum h y^T (`closed_form.truncated`). No lambda is chosen. What differs from the paper: M =
100,000 and rank 10,000 are 8 GB in float64; the defaults are a fifth of both. What differs from the official code: it
updates U by QR and SVD and orthogonalises it again, in single precision; here the same directions follow from the
products of the rows that are kept, in float64. Directions that rounding alone fills (duplicate rows) are left out,
where the code divides by them; its blocks have up to 10,000 rows, here up to the rank.

With few rows a quarter of the directions is truncated too: after n rows, round(0.75 n) are left, and at least one.
"""

from __future__ import annotations

from typing import Any

from tosca_cache.closed_form.expansion import RandomFeatures
from tosca_cache.closed_form.truncated import TruncatedRidge
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import ClosedForm
from tosca_cache.seeds import derive_seed


@register_learner
class LoRanPac(ClosedForm):
    """Stores singular directions times their values, [k, M] with k <= rank and k <= 0.75 n of n rows, and Q [M, C].

    Arguments:
        expansion: number M of random features (100,000 in the paper).
        rank: directions that are kept, at most (10,000 in the paper). ridge: what is added to squared singular values.
    """

    name = "loranpac"
    what = "LoRanPAC (ICLR 2025): least squares on many random ReLU features through a truncated SVD, without a lambda."
    source = "LoRanPAC on frozen features (ICLR 2025)"
    agrees = (
        "differs: a fifth of the published features and rank, in float64, and directions that rounding alone "
        "fills are left out; otherwise the truncated updates of the official code (liangzu/loranpac, "
        "utils/inc_net.py, 7c3557c)."
    )
    all_threads = True
    adds_rows = True

    def __init__(self, *, expansion: int = 20_000, rank: int = 2000, ridge: float = 0.0, **common: Any) -> None:
        super().__init__(**common)
        if rank < 1 or ridge < 0:
            raise ValueError(f"rank {rank} and ridge {ridge}: at least 1, and at least 0")
        features = RandomFeatures(expansion, seed=derive_seed(self.seed, "projection"))
        self.classifier = TruncatedRidge(features, rank=rank, ridge=ridge)
