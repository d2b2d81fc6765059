"""Linear discriminant analysis, exact from sums over rows: with a likely shrinkage, as Streaming LDA, and as FSA's head.

`lda`: Fisher's discriminant with one covariance within classes and equal priors; the shrinkage is chosen anew after every
task (`closed_form.lda.likely_shrinkage`: Hoffbeck and Landgrebe, IEEE Trans. PAMI 18 (1996); Theiler, Proc. SPIE 8391
(2012)), and the means of few rows are shortened, each by its number of rows (James and Stein 1961).

`slda`: the covariance is that of all rows about the final class means, with divisor n - C. The official code begins with a
base session, whose covariance is shrunk by OAS, and goes on row by row with divisor n, each row about the mean of its class
so far. Class means begin at zero there, so that the first row of every class after the base
session enters uncentred, as if its distance from the origin were scatter within its class, and the result depends on the
order of the rows. `estimator=streaming` is the official way; neither is the more accurate (held-out train rows: digits
100.0 and 99.6 %, glyphs 90.1 both, groceries under EfficientNet-Lite0 94.0 and 95.6, under DINOv2 91.2 and 90.8).

`fsa-lda`: uniform class priors and the covariance about the mean of all rows, after `tosca adapt --kind film` or frozen.
"""

from __future__ import annotations

from typing import Any, Literal

from tosca_cache.closed_form.lda import Lda, StreamingLda
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import ClosedForm


@register_learner
class LinearDiscriminant(ClosedForm):
    """Stores sum x x^T [d, d], class sums [C, d] and counts [C]."""

    name = "lda"
    what = (
        "Linear discriminant analysis, its covariance shrunk to what makes left-out rows likeliest, class means of few "
        "rows shortened; exact from sums over rows."
    )
    source = "linear discriminant analysis (Fisher 1936), shrunk after Hoffbeck and Landgrebe (1996)"
    agrees = (
        "equal to the paper's equations (Hoffbeck and Landgrebe 1996, with the mean distance of Theiler 2012; class means "
        "shortened after James and Stein 1961, each by its number of rows and by a noise that their lengths show, which "
        "is ours); there is no official code."
    )

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = Lda()


@register_learner
class Slda(ClosedForm):
    """Stores sum x x^T [d, d], class sums [C, d] and counts [C].

    Arguments:
        shrinkage: e in ((1 - e) S + e I)^-1; its strength depends on the scale of the features.
        estimator: what S is. `fixed`: the covariance of all rows, see above; `streaming`: as in the official code, a base
            session (the first task) with OAS and then updates row by row; `oas`: that of all rows, with e and, in the
            place of 1, the mean variance of the oracle approximating shrinkage (RanDumb's), anew after every task.
    """

    name = "slda"
    what = "Streaming LDA (arXiv 1909.01520): one covariance within classes, from sums over rows, shrunk by a fixed amount."
    source = "Streaming LDA (arXiv 1909.01520)"
    agrees = (
        "differs: the covariance does not depend on the order of the rows; with `estimator=streaming` it is equal to the "
        "official code (tyler-hayes/Deep_SLDA, SLDA_Model.py and experiment.py, 01d94cd)."
    )

    def __init__(
        self, *, shrinkage: float = 1e-4, estimator: Literal["fixed", "streaming", "oas"] = "fixed", **common: Any
    ) -> None:
        super().__init__(**common)
        if estimator == "streaming":
            self.classifier = StreamingLda(shrinkage=shrinkage)
        elif estimator == "oas":
            self.classifier = Lda(oas=True)
        else:
            self.classifier = Lda(shrinkage=shrinkage, relative=False)


@register_learner
class FsaLda(ClosedForm):
    """Stores sum x x^T [d, d], class sums [C, d] and counts [C].

    Arguments:
        ridge: what is added to the diagonal of the covariance.
    """

    name = "fsa-lda"
    what = "FSA's incremental LDA head (arXiv 2303.13199): the total covariance plus the identity, from sums over all rows."
    source = "First Session Adaptation (arXiv 2303.13199), the LDA head"
    agrees = (
        "equal to the official code (aresPanos/fsa, src/utils.py and src/methods/cil_trainer.py, effa9ce) without its "
        "adapted backbone."
    )

    def __init__(self, *, ridge: float = 1.0, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = Lda(shrinkage=0.0, ridge=ridge, total=True, relative=False)
