"""Linear discriminant analysis on random Fourier features of a Gaussian kernel: KLDA, its ensemble, and RanDumb.

z(x) = sqrt(2 / M) cos(x W + b) with W ~ N(0, 2 gamma) and b ~ U(0, 2 pi); class means mu_c and the scatter within
classes S = sum_i (z_i - mu_y)(z_i - mu_y)^T are exact sums; the class of least Mahalanobis distance (z - mu_c)^T P (z
- mu_c) answers.

`klda` (arXiv 2412.15571): P = (S + r I)^-1, S not divided by the number of rows. What differs from the official code:
a class that gets rows in several tasks has its scatter about its final mean, where the code takes each part's about
the mean of its time; gamma follows from the first task, where the code has one a backbone (DINOv2: gamma 1e-4, r
1e-3; MoCo-v3: 1e-2, 1e-4). `klda-e` averages softmaxes of several draws of W and b. The distances in them are of the
covariance (S + r I) / n; how the official ensemble scales them, and how many draws it has, is not known to us.

`randumb` (arXiv 2402.08823): P is the inverse of S / n shrunk by OAS. What differs from the official code: it shrinks
the covariance of each class by itself and averages them, and weighs classes by their rows in the answer; here the one
covariance of the paper is shrunk, and classes are equal. It learns from horizontally flipped images too, here from
the clean rows alone.

With one row of every class there is no scatter, and the nearest mean in z answers. A class needs one row.
"""

from __future__ import annotations

from typing import Any

from tosca_cache.closed_form.kernels import FourierFeatures
from tosca_cache.closed_form.random_lda import Ensemble, RandomLda
from tosca_cache.config.checks import Count
from tosca_cache.learners.base import Positive, register_learner
from tosca_cache.learners.closed import ClosedForm
from tosca_cache.seeds import derive_seed


class _KernelLda(ClosedForm):
    all_threads = True
    adds_rows = True

    def _member(self, expansion: int, gamma: float | None, ridge: float | None, width: str, draw: int = 0) -> RandomLda:
        seed = derive_seed(self.seed, "projection", draw) if draw else derive_seed(self.seed, "projection")
        return RandomLda(FourierFeatures(expansion, seed=seed, gamma=gamma, width=width), seed=seed, ridge=ridge)


@register_learner
class Klda(_KernelLda):
    """Stores square roots of Gram matrices, [r, M] and [r, C] for r <= M rows in all, then the sums [M, M] and [M, C].

    Arguments:
        expansion: number M of random features.
        gamma: of the kernel exp(-gamma |x - x'|^2); None: 1 / (2 median squared distance) in the first task.
        ridge: r, what is added to the diagonal of the scatter.
    """

    name = "klda"
    what = "KLDA (arXiv 2412.15571): linear discriminant analysis on random Fourier features of a Gaussian kernel."
    source = "KLDA (arXiv 2412.15571)"
    agrees = (
        "differs: gamma follows from the first task, where the official code (SalehMomeni/AnaCP, "
        "models/klda.py, 480d9f3) has one a backbone; and a class's rows of several tasks lie about their "
        "final mean."
    )

    def __init__(
        self, *, expansion: Count = 5000, gamma: Positive | None = None, ridge: Positive = 1e-3, **common: Any
    ) -> None:
        super().__init__(**common)
        self.classifier = self._member(expansion, gamma, ridge, "median")


@register_learner
class KldaEnsemble(_KernelLda):
    """Stores what `klda` does, once for every draw.

    Arguments:
        draws: how many random projections. expansion, gamma, ridge: of each, as `klda` has them.
    """

    name = "klda-e"
    what = "KLDA-E (arXiv 2412.15571): the mean probability of several KLDAs of different random features."
    source = "KLDA-E (arXiv 2412.15571)"
    agrees = "differs: no official code of the ensemble was found; number of draws and scale of the distances are ours."

    def __init__(
        self,
        *,
        draws: Count = 3,
        expansion: Count = 5000,
        gamma: Positive | None = None,
        ridge: Positive = 1e-3,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.classifier = Ensemble([self._member(expansion, gamma, ridge, "median", draw) for draw in range(draws)])


@register_learner
class RanDumb(_KernelLda):
    """Stores square roots of Gram matrices, [r, M] and [r, C] for r <= M rows in all, then the sums [M, M] and [M, C].

    Arguments:
        expansion: number M of random features (10,000 to 25,000 in the paper).
        gamma: of the kernel exp(-gamma |x - x'|^2); None: 1 / (d variance of all numbers) in the first task.
    """

    name = "randumb"
    what = (
        "RanDumb (arXiv 2402.08823): linear discriminant analysis on random Fourier features, its covariance shrunk by "
        "OAS."
    )
    source = "RanDumb (arXiv 2402.08823)"
    agrees = (
        "differs: one covariance is shrunk, as in the paper, and classes weigh the same, where the official "
        "code (drimpossible/RanDumb, src/main.py, 09dc225) shrinks each class's and weighs by rows; no "
        "flipped images."
    )

    def __init__(self, *, expansion: Count = 10_000, gamma: Positive | None = None, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = self._member(expansion, gamma, None, "scale")
