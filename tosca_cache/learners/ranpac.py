"""RanPAC on frozen features (arXiv 2307.02251, its ablation without phase 1): ridge regression on random ReLU features.

Lambda is chosen at each task from that task's rows alone, as in the official code: four fifths of them, rounded down, are
fitted, in an order drawn from the seed (there that of a shuffled loader). Sums and solution are in single precision as
there, `precision="float64"` excepted; the errors of the split are computed in float64, there in float32. What differs: the
sums are kept as square roots of Gram matrices while rows are fewer than features (`closed_form.random_ridge`), which
changes nothing but rounding, and a lambda too small to solve for is raised until it is not. Phase 1 is
`tosca adapt`: on a frozen store there is none, on an adapted one this is the whole of it.

`acil`, and G-ACIL, which is the same recursion on tasks with rows of earlier classes. What differs from the official code:
the backbone is frozen from the start, where there it is trained on the first task; and while there are at most 1.5 rows for
each random feature, the inverse autocorrelation is kept in a smaller, equal form (`closed_form.recursive`).

`garm`: rows of earlier classes may come in any task. As in the official code the weights of the classes have a mean of one,
which is the unit of gamma. What differs: the backbone is frozen from the start, as for `acil`; and the official code keeps
a Gram matrix [M, M] of every class, where here its square root is kept (`closed_form.balanced`).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from tosca_cache.closed_form.balanced import BalancedRidge
from tosca_cache.closed_form.expansion import RandomFeatures
from tosca_cache.closed_form.random_ridge import RandomRidge
from tosca_cache.closed_form.recursive import RecursiveRidge
from tosca_cache.closed_form.ridge import SELECTIONS, Ridge
from tosca_cache.errors import UsageError
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import ClosedForm
from tosca_cache.seeds import derive_seed

RIDGES = ("fixed", "gcv")
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


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
    adds_rows = True

    def __init__(
        self,
        *,
        expansion: int = 10_000,
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
        features = RandomFeatures(expansion, seed=seed, dtype=PRECISIONS[precision])
        self.classifier = RandomRidge(features, seed=seed, lam=lam, selection=selection)


@register_learner
class RanPacRaw(ClosedForm):
    """Stores sum x x^T [d, d] and class sums [d, C]; lambda is chosen at each task from its own rows; float64."""

    name = "ranpac-raw"
    what = (
        "RanPAC without random projection and phase 1 (an ablation of arXiv 2307.02251): ridge regression on raw "
        "features."
    )
    source = "RanPAC without projection and phase 1 (arXiv 2307.02251)"
    agrees = (
        "equal to the official code (RanPAC/RanPAC, RanPAC.py with M = 0, 698e00c) without its phase 1, up to the order in "
        "which a task's rows are split to choose lambda, and float64 throughout."
    )
    adds_rows = True

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = Ridge(seed=derive_seed(self.seed, "projection"), selection="split")


class Analytic(ClosedForm):
    """Ridge regression of a fixed strength on random ReLU features."""

    ridge: ClassVar[type[RecursiveRidge] | type[BalancedRidge]]
    all_threads = True
    adds_rows = True

    def __init__(self, *, buffer: int = 8192, gamma: float = 0.1, **common: Any) -> None:
        super().__init__(**common)
        features = RandomFeatures(buffer, seed=derive_seed(self.seed, "projection"), law="uniform")
        self.classifier = self.ridge(features, gamma=gamma)


@register_learner
class Acil(Analytic):
    """Stores square roots of Gram matrices, [r, M] and [r, C], for r <= 1.5 M rows; then an inverse [M, M], and W [M, C].

    A class needs one row.

    Arguments:
        buffer: number M of random features. gamma: the ridge.
        selection: `fixed`, as published: the ridge is gamma; `gcv`: it is chosen anew at each task by generalised
            cross-validation over all rows so far, and no row is held out (it then stores what `ranpac` does).
    """

    name = "acil"
    what = "ACIL (NeurIPS 2022) and G-ACIL (arXiv 2403.15706): recursive least squares on random ReLU features."
    source = "ACIL (NeurIPS 2022) and G-ACIL (arXiv 2403.15706)"
    agrees = (
        "equal to the official code (ZHUANGHP/Analytic-continual-learning, analytic/ACIL.py and AnalyticLinear.py, "
        "16c49d9) without its base training."
    )
    ridge = RecursiveRidge

    def __init__(self, *, buffer: int = 8192, gamma: float = 0.1, selection: str = "fixed", **common: Any) -> None:
        super().__init__(buffer=buffer, gamma=gamma, **common)
        if selection not in RIDGES:
            remedy = f"choose of {', '.join(RIDGES)}"
            raise UsageError(f"unknown selection {selection!r}", where=self.name, remedy=remedy)
        if selection == "gcv":
            seed = derive_seed(self.seed, "projection")
            self.classifier = RandomRidge(RandomFeatures(buffer, seed=seed, law="uniform"), seed=seed, selection="gcv")


@register_learner
class AcilViT(Acil):
    """Stores what `acil` does.

    Arguments:
        buffer, gamma, selection: as those of `acil`. Gamma is published as 100 or 500, by dataset.
    """

    name = "acil-vit"
    what = (
        "ACIL (NeurIPS 2022) in the published setting for frozen vision transformers: a large buffer, a strong ridge."
    )
    source = "ACIL as run on frozen ViTs in MIN (NeurIPS 2025)"
    agrees = (
        "differs: the recursion of `acil` with other defaults; the published figures in this setting (MIN, "
        "NeurIPS 2025) name buffer and ridge, and no code of that run is known to us."
    )

    def __init__(self, *, buffer: int = 16_384, gamma: float = 100.0, **common: Any) -> None:
        super().__init__(buffer=buffer, gamma=gamma, **common)


@register_learner
class Garm(Analytic):
    """Stores square roots of the classes' Gram matrices, as many rows of M numbers as there were train rows.

    Arguments:
        buffer: number M of random features.
        gamma: multiplies the identity that is added to sum_c w_c G_c, the Gram matrices of all classes with weights
            w_c ~ 1 / n_c of mean 1 (n_c rows of class c). With as many rows of every class this is the ridge of `acil`.
            The default is that of the official code.
    """

    name = "garm"
    what = "Class-balanced analytic learning (AIR, arXiv 2408.10349): every class's Gram matrix divided by its count."
    source = "AIR's GeneralizedARM (arXiv 2408.10349)"
    agrees = (
        "equal to the official code (ZHUANGHP/Analytic-continual-learning, analytic/AIR.py and AnalyticLinear.py, "
        "16c49d9) without its base training."
    )
    ridge = BalancedRidge
