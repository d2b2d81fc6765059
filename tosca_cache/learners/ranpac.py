"""RanPAC on frozen features (arXiv 2307.02251, its ablation without phase 1): ridge regression on random ReLU features.

Lambda is chosen at each task from that task's rows alone: four fifths of them, rounded down, are fitted, in an order drawn
from the seed (there that of a shuffled loader), the errors of the split in float64. What differs: the sums are kept as
square roots of Gram matrices while rows are fewer than features (`closed_form.random_ridge`), which changes nothing but
rounding, in systems of 4,096 equations and more solutions are found up to a residual of 1e-6
(`closed_form.ridge.solve_in_subspace`), and a lambda too small to solve for is raised until it is not. Phase 1 is `tosca
adapt`: on a frozen store there is none, on an adapted one this is the whole of it.

`layup`: z = [CLS] of the last k blocks behind one another, as they are, the last one after the final norm (there before
it); G = sum z z^T, Q = sum z y^T, W = (G + lambda I)^-1 Q, no bias. Lambda is chosen at each task: of 15 values from 1e-4
to 1e3 in even steps of their logarithm, and 1e-8, that of the best mean accuracy over four stratified folds of the task's
rows, each fold's W from all sums before plus the other folds. k is what the store keeps: `tosca extract --layers 6` makes
the published one. The optional first session is left out: it adapts the backbone (`tosca adapt`). Where no class of a task
has four rows the official folds fail, and here some have fewer rows; with one row of each class the first lambda stands.

`fly-cl` (field.md A2): v = P x with a P of M rows of 100 normal entries each at random places; the largest 1 % of v are
kept as they are, the others are 0. W = (G + lambda I)^-1 Q; lambda is, at each task, that of {1e4, ..., 1e9} that minimises
(|Y - Y'|^2 / n) / (1 - df / n)^2 over the task's own n rows, with df = sum_i s_i^2 / (s_i^2 + lambda) of the singular
values of their codes, for tasks of more than 256 rows estimated by random signs (`closed_form.gcv`). The grid presumes
features of the size that ViT-B/16 gives; on smaller ones its least value stands. A row whose code has no entry in common
with another one of its group is its own square root, and is kept as it is.

A class needs one row in each of them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt, Le

from tosca_cache.closed_form.expansion import RandomFeatures, SparseCodes
from tosca_cache.closed_form.random_ridge import RandomRidge
from tosca_cache.closed_form.ridge import Ridge
from tosca_cache.config.checks import Count
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import ClosedForm
from tosca_cache.seeds import derive_seed

Precision = Literal["float32", "float64"]
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
FLY_LAMBDAS = tuple(10.0**power for power in range(4, 10))


@register_learner
class RanPac(ClosedForm):
    """Stores square roots of Gram matrices, [r, M] and [r, C] for r <= M rows in all, then the sums [M, M] and [M, C].

    With the published choice of lambda, accuracy falls apart (by 30 points and more) where all rows so far are about as
    many as M: use selection=gcv there, or another expansion.

    Arguments:
        expansion: number M of random features.
        lam: a fixed lambda; None: chosen at each task, by `selection`.
        selection: `split`, as published: from 10^-8 to 10^8, by a fifth of the last task's rows. `gcv`: by generalised
            cross-validation over all rows (`closed_form.gcv`).
        precision: of sums and solution, `float32` or `float64`.
    """

    all_threads = True
    name = "ranpac"
    source = "RanPAC without phase 1 (arXiv 2307.02251)"
    agrees = (
        "equal to the official code (RanPAC/RanPAC, RanPAC.py, 698e00c) without its phase 1, up to the order in which a "
        "task's rows are split to choose lambda, and float64 where lambda is chosen."
    )

    def __init__(
        self,
        *,
        expansion: Count = 10_000,
        lam: float | None = None,
        selection: Literal["split", "gcv"] = "split",
        precision: Precision = "float32",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        seed = derive_seed(self.seed, "projection")
        features = RandomFeatures(expansion, seed=seed, dtype=PRECISIONS[precision])
        self.classifier = RandomRidge(features, seed=seed, lam=lam, selection=selection)


@register_learner
class RanPacRaw(ClosedForm):
    """Stores sum x x^T [d, d] and class sums [d, C]; lambda is chosen at each task from its own rows; float64."""

    name = "ranpac-raw"
    what = (
        "RanPAC without random projection and phase 1 (an ablation of arXiv 2307.02251): ridge regression on features."
    )
    source = "RanPAC without projection and phase 1 (arXiv 2307.02251)"
    agrees = (
        "equal to the official code (RanPAC/RanPAC, RanPAC.py with M = 0, 698e00c) without its phase 1, up to the order in "
        "which a task's rows are split to choose lambda, and float64 throughout."
    )

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = Ridge(seed=derive_seed(self.seed, "projection"), selection="split")


@register_learner
class LayUp(ClosedForm):
    """Stores sum z z^T [k d, k d] and class sums [k d, C]; float64."""

    name = "layup"
    what = "LayUP (TMLR 2024): ridge regression on the [CLS] of all blocks that a store keeps (`tosca extract --layers 6`)."
    source = "LayUP without the first session (TMLR 2024)"
    agrees = (
        "differs: the last block's [CLS] is after the final norm; folds, lambdas and solution are "
        "those of the official code (ky-ah/LayUP, src/modules/ridge.py, f9096cf)."
    )
    pieces = "all"

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = Ridge(selection="folds")


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

    def __init__(
        self,
        *,
        expansion: Count = 10_000,
        inputs: Count = 100,
        active: Annotated[float, Gt(0), Le(1)] = 0.01,
        lam: float | None = None,
        precision: Precision = "float32",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        seed, dtype = derive_seed(self.seed, "projection"), PRECISIONS[precision]
        features = SparseCodes(expansion, seed=seed, inputs=inputs, active=active, dtype=dtype)
        self.classifier = RandomRidge(features, seed=seed, lam=lam, selection="gcv-task", lambdas=FLY_LAMBDAS)
