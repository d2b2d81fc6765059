"""Linear discriminant analysis from sums: one covariance, shared by all classes (methods.md 2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tosca_cache.closed_form.base import Solved
from tosca_cache.closed_form.gram import add_gram
from tosca_cache.closed_form.ridge import solve

# From the least, so that a direction in which nothing varies can be divided by, to the mean variance alone.
SHRINKAGES = tuple(10 ** (step / 10) for step in range(-40, 1))
MANY = 4  # rows a dimension, from which on e hardly changes
LEAST_FREEDOM = 2  # with less, a covariance says nothing
NOTHING = 1e-12  # of the second moment: what rounding leaves of a covariance of zero


class Lda(Solved):
    """Scores w_c . x + b_c; float64, and exact for any split of the rows into tasks.

    With a shrinkage of its own, w_c = L mu_c, b_c = -mu_c . w_c / 2 and L = ((1 - e) S + (e t + r) I)^-1: S is the
    covariance within classes of all rows so far, t its mean variance (trace / d), so that the shrinkage e does not depend
    on the scale of the features. Where S and r leave nothing to invert, L is the least-norm inverse.

    Without one, e is chosen from S (`likely_shrinkage`). With one row a class there is no S, and the covariance about the
    mean m of all rows stands for it. And means, about m, are longer than what they estimate, by what a mean of n_c rows
    varies: w_c = a_c / a L (mu_c - m), b_c = -(m + a_c / 2 (mu_c - m)) . w_c with `shortening` a_c, of mean a (James and
    Stein, Proc. 4th Berkeley Symposium 1 (1961); the posterior mean where class means are normal about m). There m is the
    mean of the class means, so that classes of one row count as others do.

    Arguments:
        shrinkage: e; None: chosen, as said; with `oas` by `oas_shrinkage`, all else as with one of its own. ridge: r.
        total: S is the covariance about the mean of all rows instead, sum (x - m)(x - m)^T / (n - 1).
        relative: False: t is 1.
        again: how many times the rows for which e was chosen there must be before it is chosen anew, once rows are `MANY`.
            Above 1, e depends on the numbers of rows at which it was asked for.
        dtype: of the products of rows, whose sums are in float64 (`gram.add_gram`).
    """

    learned = ("second", "sums", "counts")

    def __init__(
        self,
        *,
        shrinkage: float | None = None,
        ridge: float = 0.0,
        total: bool = False,
        relative: bool = True,
        oas: bool = False,
        again: float = 1.0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.shrinkage, self.ridge, self.total, self.relative, self.oas = shrinkage, ridge, total, relative, oas
        self.again, self.dtype = again, dtype
        self.second = torch.empty(0, 0, dtype=torch.float64)  # sum x x^T, [d, d]
        self.sums = torch.empty(0, 0, dtype=torch.float64)  # of each class, [C, d]
        self.counts = torch.empty(0, dtype=torch.float64)
        self.assumed: float | None = None  # e, if it is not to be chosen from the rows
        self._chosen: float | None = None  # e, if it still holds
        self._chosen_at = 0.0  # rows

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds rows: features [n, d], labels [n]; classes: how many there are with these, C."""
        rows, x = x.to(self.dtype), x.double()
        self._count(x, labels, classes)
        self.second = add_gram(self.second.clone(), rows)  # states of before are kept as they are
        if self._chosen_at < MANY * x.shape[1] or self.counts.sum() >= self.again * self._chosen_at:
            self._chosen, self._chosen_at = None, 0.0

    def _count(self, x: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Adds rows to sums and counts; gives these as they were, with zeros for new classes."""
        if not len(self.counts):
            self.second, self.sums = x.new_zeros(x.shape[1], x.shape[1]), x.new_zeros(0, x.shape[1])
            self.counts = x.new_zeros(0)
        new = classes - len(self.sums)
        sums = torch.cat([self.sums, x.new_zeros(new, x.shape[1])])
        counts = torch.cat([self.counts, x.new_zeros(new)])
        self.sums = sums.index_add(0, labels, x)
        self.counts = counts.index_add(0, labels, torch.ones_like(x[:, 0]))
        self._weights = None
        return sums, counts

    def chosen_shrinkage(self) -> float:
        """e for the rows so far."""
        if self._chosen is None:
            self._chosen = self.assumed if self.shrinkage is None else self.shrinkage
        if self._chosen is None:
            total = self._is_total()
            covariance = self._covariance(self._means(), total=total)
            if self.oas:
                traces = float(covariance.diagonal().sum()), float(covariance.square().sum())
                self._chosen = oas_shrinkage(*traces, len(covariance), int(self.counts.sum()))
            else:
                freedom = float(self.counts.sum()) - (1 if total else len(self.counts))
                self._chosen = likely_shrinkage(covariance, freedom)
            self._chosen_at = float(self.counts.sum())
        return self._chosen

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes, [n, C]."""
        weights, bias = self.weights()
        return x.double() @ weights + bias

    def gaussian(self) -> tuple[Tensor, Tensor]:
        """The class means [C, d], and the covariance that they share, S [d, d]."""
        means = self._means()
        return means, self._covariance(means, total=self.total)

    def solved(self) -> tuple[Tensor, Tensor]:
        """All w_c, [d, C], and b_c, [C]."""
        means, shrinkage, chosen = self._means(), self.chosen_shrinkage(), self._is_likely()
        covariance = self._covariance(means, total=self._is_total())
        centre = means[self.counts > 0].mean(0) if chosen else torch.zeros_like(means[0])
        away = (means - centre).T  # [d, C]
        scale, whole = float(covariance.diagonal().mean()), float(self.second.diagonal().mean() / self.counts.sum())
        ridge = shrinkage * (scale if self.relative else 1.0) + self.ridge
        # All rows of a class may be one point; without a ridge of its own, the nearest mean is what is left.
        if scale <= NOTHING * whole and (self.relative or not ridge):
            weights = away
        else:
            weights = solve((1 - shrinkage) * covariance, away, ridge)
        lengths = (away * weights).sum(0)  # of the means, squared
        if not chosen:
            return weights, -centre @ weights - 0.5 * lengths
        shorter, relative = self.shortening(lengths)
        return relative * weights, relative * (-centre @ weights - 0.5 * shorter * lengths)

    def shortening(self, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """a_c = v / (v + s / n_c) of squared lengths of means, where means of all rows there are would have v; and a_c / a.

        Both [C]; a is the mean a_c, so that a_c / a is 1 where classes have as many rows. v is along one direction, in
        units of the variance within classes: what the lengths are, on average, more than s / n_c, s by `noise_of_means`.
        A half where nothing tells classes from rows.
        """
        there = self.counts > 0
        classes, one = int(there.sum()), torch.ones_like(lengths)
        if self._is_total():
            return 0.5 * one, one
        found = float(lengths[there].sum()) / (max(classes - 1, 1) * len(self.second))  # v + 1 / n
        if classes == 1 or not found > 0:
            return one, one
        few, each = 1 / self.counts[there], lengths[there] / len(self.second)
        noise = noise_of_means(each, few)
        between = max(0.0, found - noise * float(few.mean()))
        counts = self.counts.where(there, self.counts[there].mean())  # a class without rows is one like others, at 0
        scale = counts / (noise + counts * between)  # a_c / v
        return between * scale, scale / scale[there].mean()

    def _is_likely(self) -> bool:
        """Whether everything is chosen from the rows."""
        return self.shrinkage is None and not self.oas

    def _is_total(self) -> bool:
        """Whether the covariance is the one about the mean of all rows: as told, or as there is no other."""
        return self.total or (self._is_likely() and float(self.counts.sum()) < len(self.counts) + LEAST_FREEDOM)

    def _means(self) -> Tensor:
        return self.sums / self.counts.unsqueeze(1).clamp_min(1)

    def _covariance(self, means: Tensor, *, total: bool) -> Tensor:
        n = float(self.counts.sum())
        if total:
            mean = self.sums.sum(0) / n
            return (self.second - n * torch.outer(mean, mean)) / max(n - 1, 1.0)
        return (self.second - (means * self.counts.unsqueeze(1)).T @ means) / max(n - len(means), 1.0)

    def state(self) -> dict[str, Tensor]:
        """The sums, and the shrinkage if it outlasts new rows."""
        state = super().state()
        if self.again > 1 and self._chosen is not None:
            state["chosen"] = torch.tensor([self._chosen, self._chosen_at], dtype=torch.float64)
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on where another one was."""
        super().load_state(state)
        self._chosen, self._chosen_at = state["chosen"].tolist() if "chosen" in state else (None, 0.0)


class StreamingLda(Lda):
    """`Lda` with the covariance of a base session and of updates row by row, which depends on the order of the rows.

    As the official code of Streaming LDA has it (arXiv 1909.01520; tyler-hayes/Deep_SLDA, SLDA_Model.py); float64.

    The first rows are the base: S is their covariance about the class means (divisor n), shrunk by OAS (scikit-learn's).
    Each later row x, the (n + 1)-th, makes n S into n S + n / (n + 1) (x - m)(x - m)^T, divided by n + 1, with m the mean
    of its class before it: 0 if it is the first, so that the first row of a class enters uncentred.

    Arguments:
        shrinkage: e in ((1 - e) S + e I)^-1.
    """

    def __init__(self, *, shrinkage: float) -> None:
        super().__init__(shrinkage=shrinkage, relative=False)

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds rows in their order: features [n, d], labels [n]; classes: how many there are with these, C."""
        x, first = x.double(), not len(self.counts)
        sums, counts = self._count(x, labels, classes)
        if first:
            self.second = len(x) * _oas(x - self._means()[labels])  # n S
        else:
            before = float(counts.sum()) + torch.arange(len(x)).to(x)
            deviation = x - _means_before(x, labels, sums, counts)
            self.second = self.second + (deviation * (before / (before + 1)).unsqueeze(1)).T @ deviation

    def _covariance(self, means: Tensor, *, total: bool) -> Tensor:
        return self.second / self.counts.sum()


def noise_of_means(lengths: Tensor, few: Tensor) -> float:
    """s of means of n_c rows whose squared lengths are v + s / n_c: 1, or more where new classes vary in other directions.

    The covariance is that of classes with many rows; where others vary more along it, their means of few rows are longer by
    more than 1 / n_c. s is the slope of the line through the lengths, less its standard error, if that is above 1.

    Arguments:
        lengths: along one direction, [C]. few: 1 / n_c, [C].
    """
    away = few - few.mean()
    spread, free = float(away.square().sum()), len(few) - 2
    if free < 1 or not spread > NOTHING:
        return 1.0
    slope = float((away * lengths).sum()) / spread
    left = lengths - lengths.mean() - slope * away
    return max(1.0, slope - (float(left.square().sum()) / (free * spread)) ** 0.5)


def likely_shrinkage(covariance: Tensor, freedom: float) -> float:
    """The share of the mean variance in a shrunk covariance S [d, d] that makes left-out rows likeliest; from S alone.

    Hoffbeck and Landgrebe, IEEE Trans. PAMI 18 (1996), with the mean Mahalanobis distance in place of each row's, so
    that eigenvalues are enough: Theiler, Proc. SPIE 8391 (2012). The shrinkage of least expected square error (Ledoit and
    Wolf, OAS) follows the largest variances and drowns directions of small variance, by which classes are told apart.

    Arguments:
        freedom: degrees of freedom of S; with less than 2 it is 1.
    """
    values = torch.linalg.eigvalsh(covariance).clamp_min(0)
    mean = values.mean()
    if freedom < 2 or not float(mean) > 0:
        return 1.0
    share = torch.tensor(SHRINKAGES).to(values).unsqueeze(1)  # [K, 1]
    left = (1 - share) / (freedom - 1)
    shrunk = freedom * left * values + share * mean  # eigenvalues of G = f b S + e t I, [K, d]
    distance = (values / shrunk).sum(1)  # tr(S G^-1)
    free = (1 - left[:, 0] * distance).clamp_min(torch.finfo(values.dtype).tiny)
    surprise = free.log() + shrunk.log().sum(1) + distance / free
    return SHRINKAGES[int(surprise.argmin())]


def oas_shrinkage(trace: float, squares: float, size: int, rows: int) -> float:
    """The share of the mean variance in a shrunk covariance S that approximates the oracle's least square error (OAS).

    Chen, Wiesel, Eldar and Hero, IEEE Trans. Signal Processing 58 (2010), eq. 23, as scikit-learn has it: with a =
    tr(S S) / p^2 and m = tr(S) / p it is (a + m^2) / ((n + 1) (a - m^2 / p)), at most 1; the same for S and any
    multiple of it.

    Arguments:
        trace: tr(S). squares: tr(S S). size: p. rows: n.
    """
    mean, spread = trace / size, squares / size**2
    below = (rows + 1) * (spread - mean**2 / size)
    return min((spread + mean**2) / below, 1.0) if below > 0 else 1.0


def _means_before(x: Tensor, labels: Tensor, sums: Tensor, counts: Tensor) -> Tensor:
    """The mean of each row's class over all rows before it, 0 if there are none, [n, d]; of sums [C, d] and counts [C]."""
    found = torch.empty_like(x)
    for c in labels.unique().tolist():
        rows = (labels == c).nonzero()[:, 0]
        known = counts[c] + torch.arange(len(rows)).to(x)
        found[rows] = (sums[c] + x[rows].cumsum(0) - x[rows]) / known.clamp_min(1).unsqueeze(1)
    return found


def _oas(centred: Tensor) -> Tensor:
    from sklearn.covariance import oas

    covariance, _ = oas(centred.cpu().numpy(), assume_centered=True)
    return torch.from_numpy(covariance).to(centred)
