"""Fly-CL (field.md A2): ridge regression on sparse winner-take-all codes, lambda by generalised cross-validation.

v = P x with a P of M rows of 100 normal entries each at random places; the largest 1 % of v are kept as they are, the
others are 0. G = sum h h^T and Q = sum h y^T; W = (G + lambda I)^-1 Q; lambda is, at each task, that of {1e4, ...,
1e9} that minimises (|Y - Y'|^2 / n) / (1 - df / n)^2 over the task's own n rows, with df = sum_i s_i^2 / (s_i^2 +
lambda) of the singular values of their codes.

What differs from the official code: the sums are kept as square roots of Gram matrices while rows are fewer than features
(`closed_form.random_ridge`), and for tasks of more than 256 rows df is estimated by random signs (`closed_form.gcv`). The
grid is absolute: it presumes features of the size that ViT-B/16 gives. On smaller ones its least value stands. A task of
one row chooses among the same lambdas; a class needs one row.

A row whose code has no entry in common with another one of its group is its own square root, and is kept as it is.
"""

from __future__ import annotations

from typing import Any

from tosca_cache.closed_form.expansion import SparseCodes
from tosca_cache.closed_form.random_ridge import RandomRidge
from tosca_cache.errors import UsageError
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import ClosedForm
from tosca_cache.learners.ranpac import PRECISIONS
from tosca_cache.seeds import derive_seed

LAMBDAS = tuple(10.0**power for power in range(4, 10))


@register_learner
class FlyCl(ClosedForm):
    """Stores square roots of Gram matrices, [r, M] and [r, C] for r <= M rows in all, then the sums [M, M] and [M, C].

    Arguments:
        expansion: number M of codes. inputs: features that each of them sums. active: share of them that is kept.
        lam: a fixed lambda; None: chosen at each task.
        precision: of sums and solution, `float32` or `float64`.
    """

    name = "fly-cl"
    what = "Fly-CL: ridge regression on sparse winner-take-all codes of sparse random projections, lambda by GCV."
    source = "Fly-CL (github.com/gfyddha/Fly-CL)"
    agrees = (
        "differs: written from the equations that are known of the official code (gfyddha/Fly-CL, main.py); "
        "degrees of freedom are estimated by random signs for tasks of more than 256 rows."
    )
    all_threads = True
    adds_rows = True

    def __init__(
        self,
        *,
        expansion: int = 10_000,
        inputs: int = 100,
        active: float = 0.01,
        lam: float | None = None,
        precision: str = "float32",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if precision not in PRECISIONS:
            remedy = f"choose of {', '.join(PRECISIONS)}"
            raise UsageError(f"unknown precision {precision!r}", where="fly-cl", remedy=remedy)
        seed, dtype = derive_seed(self.seed, "projection"), PRECISIONS[precision]
        features = SparseCodes(expansion, seed=seed, inputs=inputs, active=active, dtype=dtype)
        self.classifier = RandomRidge(features, seed=seed, lam=lam, selection="gcv-task", lambdas=LAMBDAS)
