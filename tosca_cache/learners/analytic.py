"""Analytic learning by recursive least squares: ACIL, DS-AL, GKEAL and F-OAL, on a backbone frozen from the start.

`acil`, and G-ACIL, which is the same recursion on tasks with rows of earlier classes. While there are at most 1.5 rows for
each random feature, the inverse autocorrelation is kept in a smaller, equal form (`closed_form.recursive`).

`ds-al`: a main stream, ridge regression on ReLU(x P) as in ACIL, and a compensation stream on tanh(x P) that learns what
the main stream leaves of the new classes' targets; its scores are added with a weight C.

`gkeal`: ridge regression on phi_j(x) = exp(-|x - m_j|^2 / (2 sigma^2)), m_j rows of the first task, drawn as in the paper
(the code takes the first ones in file order). Centres are train rows, which are kept without their labels.

`f-oal`: ridge regression of strength 1 on sigmoid(x V + b), V and b as `nn.Linear` begins. The official loader drops the
last rows of a task that do not fill a minibatch. It learns online; recursive least squares after any minibatches is the
ridge solution, so that minibatches make no difference.

A class needs one row in each of them.
"""

from __future__ import annotations

from typing import Any, Literal

from tosca_cache.closed_form.expansion import KernelFeatures, RandomFeatures
from tosca_cache.closed_form.random_ridge import RandomRidge
from tosca_cache.closed_form.recursive import DualStream, RecursiveRidge
from tosca_cache.config.checks import Count
from tosca_cache.learners.base import Positive, register_learner
from tosca_cache.learners.closed import ClosedForm
from tosca_cache.seeds import derive_seed


@register_learner
class Acil(ClosedForm):
    """Stores square roots of Gram matrices, [r, M] and [r, C], for r <= 1.5 M rows; then an inverse [M, M], and W [M, C].

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
    all_threads = True

    def __init__(
        self,
        *,
        buffer: Count = 8192,
        gamma: Positive = 0.1,
        selection: Literal["fixed", "gcv"] = "fixed",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        seed = derive_seed(self.seed, "projection")
        features = RandomFeatures(buffer, seed=seed, law="uniform")
        chosen = RandomRidge(features, seed=seed, selection="gcv")
        self.classifier = chosen if selection == "gcv" else RecursiveRidge(features, gamma=gamma)


@register_learner
class AcilViT(Acil):
    """Stores what `acil` does.

    Arguments:
        buffer, gamma, selection: as those of `acil`. Gamma is published as 100 or 500, by dataset.
    """

    name = "acil-vit"
    what = "ACIL (NeurIPS 2022) as published for frozen vision transformers: a large buffer, a strong ridge."
    source = "ACIL as run on frozen ViTs in MIN (NeurIPS 2025)"
    agrees = (
        "differs: the recursion of `acil` with other defaults; the published figures in this setting (MIN, "
        "NeurIPS 2025) name buffer and ridge, and no code of that run is known to us."
    )

    def __init__(self, *, buffer: Count = 16_384, gamma: Positive = 100.0, **common: Any) -> None:
        super().__init__(buffer=buffer, gamma=gamma, **common)


@register_learner
class DsAl(ClosedForm):
    """Stores what `acil` does, twice.

    Arguments:
        buffer: number M of random features. gamma, gamma_comp: ridges of the two streams (0.1 in the commands of the code).
        ratio: C, the weight of the compensation (0.6 on CIFAR-100, 1.5 on ImageNet).
    """

    name = "ds-al"
    what = "DS-AL (AAAI 2024): ACIL, and a second stream of tanh features that learns what ACIL leaves of new classes."
    source = "DS-AL (AAAI 2024)"
    agrees = (
        "differs: what the main stream leaves is taken after a whole task, where the official code "
        "(ZHUANGHP/Analytic-continual-learning, analytic/DSAL.py, 156bc02) takes it after each minibatch."
    )
    adds_rows = False
    all_threads = True

    def __init__(
        self,
        *,
        buffer: Count = 8192,
        gamma: Positive = 0.1,
        gamma_comp: Positive = 0.1,
        ratio: float = 0.6,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        seed = derive_seed(self.seed, "projection")
        main, comp = (RandomFeatures(buffer, seed=seed, law="uniform", activation=name) for name in ("relu", "tanh"))
        self.classifier = DualStream(main, comp, gamma=gamma, gamma_comp=gamma_comp, ratio=ratio)


@register_learner
class Gkeal(ClosedForm):
    """Stores the centres [M, d]; and, as `acil`, square roots of Gram matrices, later an inverse [M, M] and W [M, C].

    Arguments:
        centres: number M of centres, at most the rows of the first task. gamma: the ridge.
        sigma: width of the kernel (5 to 15 in the paper, 10 in its code).
    """

    name = "gkeal"
    what = "GKEAL (CVPR 2023): recursive least squares on a Gaussian kernel's values at rows of the first task."
    source = "GKEAL (CVPR 2023)"
    agrees = (
        "differs: centres are drawn among the first task's rows, all of them if they are few, where the "
        "official code (ZHUANGHP/Analytic-continual-learning, analytic/Buffer.py, c2ec53f) takes the first "
        "ones and adds mixtures."
    )
    rehearsal = True  # of the first task, without labels
    all_threads = True

    def __init__(self, *, centres: Count = 8192, gamma: Positive = 0.1, sigma: Positive = 10.0, **common: Any) -> None:
        super().__init__(**common)
        features = KernelFeatures(centres, seed=derive_seed(self.seed, "centres"), sigma=sigma)
        self.classifier = RecursiveRidge(features, gamma=gamma)


@register_learner
class FOal(ClosedForm):
    """Stores square roots of Gram matrices, [r, M] and [r, C], for r <= 1.5 M rows; then an inverse [M, M], and W [M, C].

    Arguments:
        buffer: number M of random features. gamma: the ridge.
    """

    name = "f-oal"
    what = "F-OAL (NeurIPS 2024) on the store's one vector: recursive least squares on sigmoid random features."
    source = "F-OAL (NeurIPS 2024)"
    agrees = (
        "differs: on the store's one vector, where the official code (liuyuchen-cz/F-OAL) takes the mean of "
        "[CLS] over all blocks; and no rows are dropped."
    )
    all_threads = True

    def __init__(self, *, buffer: Count = 1000, gamma: Positive = 1.0, **common: Any) -> None:
        super().__init__(**common)
        seed = derive_seed(self.seed, "projection")
        features = RandomFeatures(buffer, seed=seed, law="uniform", activation="sigmoid", bias=True)
        self.classifier = RecursiveRidge(features, gamma=gamma)
