"""RanPAC on frozen features (arXiv 2307.02251, its ablation without phase 1): ridge regression on random ReLU features.

Lambda is chosen at each task from that task's rows alone, as in the official code; a random split of them is drawn from the
seed. Sums and solution are in single precision as there, `precision="float64"` excepted; the split's errors are computed in
float64. What differs: the sums are kept as square roots of Gram matrices while rows are fewer than features
(`closed_form.random_ridge`), which changes nothing but rounding, and a lambda too small to solve for is raised until it is
not. Phase 1, which adapts the backbone on the first task, cannot be had from a cache.
"""

from __future__ import annotations

from typing import Any

import torch

from tosca_cache.closed_form.expansion import RandomFeatures
from tosca_cache.closed_form.random_ridge import RandomRidge
from tosca_cache.closed_form.ridge import SELECTIONS
from tosca_cache.errors import UsageError
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import Expanded
from tosca_cache.seeds import derive_seed

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


@register_learner
class RanPac(Expanded):
    """Stores square roots of Gram matrices, [r, M] and [r, C] for r <= M rows in all, then the sums [M, M] and [M, C].

    With the published choice of lambda, accuracy falls apart (by 30 points and more) where all rows so far are about as
    many as M: use selection=gcv there, or another expansion.

    Arguments:
        expansion: number M of random features.
        projection: law of the random weights, `gaussian` as in RanPAC or `uniform` as in ACIL.
        lam: a fixed lambda; None: chosen at each task, by `selection`.
        selection: `split`, as published: from 10^-8 to 10^8, by a fifth of the last task's rows. `gcv`: by generalised
            cross-validation over all rows (`closed_form.gcv`).
        precision: of sums and solution, `float32` or `float64`.
    """

    name = "ranpac"
    source = "RanPAC without phase 1 (arXiv 2307.02251)"
    adds_rows = True

    def __init__(
        self,
        *,
        expansion: int = 10_000,
        projection: str = "gaussian",
        lam: float | None = None,
        selection: str = "split",
        precision: str = "float32",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if precision not in PRECISIONS:
            raise UsageError(
                f"unknown precision {precision!r}", where="ranpac", remedy=f"choose of {', '.join(PRECISIONS)}"
            )
        if selection not in SELECTIONS:
            remedy = f"choose of {', '.join(SELECTIONS)}"
            raise UsageError(f"unknown selection {selection!r}", where="ranpac", remedy=remedy)
        if expansion < 1:
            raise UsageError(f"there cannot be {expansion} random features", where="ranpac", remedy="give at least 1")
        seed = derive_seed(self.seed, "projection")
        features = RandomFeatures(expansion, seed=seed, law=projection, dtype=PRECISIONS[precision])
        self.classifier = RandomRidge(features, seed=seed, lam=lam, selection=selection)
