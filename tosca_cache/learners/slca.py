"""SLCA: a head a task, then all heads aligned on Gaussian samples of every class (arXiv 2303.05118; methods.md 7).

Stage 1 trains the task's own head on cached views, by cross-entropy over the task's own classes. Stage 2, from the
second task on, trains all heads on samples of N(s_c mu_c, Sigma_c + 1e-4 I) with s_c = 0.9 + 0.1 (t_c + 1) / (t + 1),
t_c the task of c, and with normalised logits: divided by the mean over the tasks of the norm of each task's logits, and
by tau. Aligned heads answer; the next task starts from the heads before alignment.

Stage 1 is published with SGD, rate 0.01, weight decay 5e-4, batches of 128, 20 or 50 epochs. Of each class a mean and a
covariance factor of rank below its number of rows is kept instead of a [d, d] covariance; sampling has the same law (see
`gaussians`). The floor of a norm stands under the root, so that a block of zeros has a gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tosca_cache.config import Settings
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.gaussians import Alignment, Gaussians
from tosca_cache.learners.learning import LinearKind, SingleModuleLearner, TaskTrainer
from tosca_cache.seeds import derive_seed
from tosca_cache.train.gradient import Tensors

BATCH = 256


@register_learner
class Slca(SingleModuleLearner):
    """Linear heads, trained one by one and aligned together.

    Arguments:
        alignment_epochs: of stage 2; 0 leaves the heads as they are.
        per_class: vectors drawn of each class in each of them.
        alignment_lr, alignment_decay: rate (cosine down to 0) and weight decay of stage 2; SGD of momentum 0.9.
        tau: of the logit normalisation.
    """

    name = "slca"
    source = "SLCA (arXiv 2303.05118), classifier alignment on a frozen backbone"
    agrees = (
        "equal to the official code (GengDavid/SLCA, models/slca.py with bcb_lrscale = 0, d5eecd8), the same draws given; "
        "stage 1 trains by the settings of the run."
    )
    kind = LinearKind()
    own_classes = True
    learned = (*SingleModuleLearner.learned, "aligned", "gaussians")
    on_cpu = ("gaussians",)

    def __init__(
        self,
        *,
        alignment_epochs: int = 5,
        per_class: int = 256,
        alignment_lr: float = 0.01,
        alignment_decay: float = 5e-4,
        tau: float = 0.1,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.alignment = None
        if alignment_epochs:
            settings = Settings(
                lr=alignment_lr, weight_decay=alignment_decay, epochs=alignment_epochs, batch_size=BATCH, eta_min=0.0
            )
            self.alignment = Alignment(settings, per_class, tau)
        self.gaussians = Gaussians()
        self.aligned: Tensors = {}

    def take(self, training: TaskTrainer[Any], model: int) -> None:
        """The task's head, the Gaussians of its classes, and all heads aligned."""
        super().take(training, model)
        adapted, labels = training.clean(model)
        self.gaussians.observe(adapted, labels, training.classes)
        self.aligned = {name: tensor.clone() for name, tensor in self.rows.items()}
        if self.alignment is not None and training.number:
            self.alignment.run(
                list(self.aligned.values()),
                lambda x: self.kind.logits(x, {}, self.aligned),
                self.gaussians,
                self.task_classes,
                seed=derive_seed(self.seed, "alignment", training.number),
                scales=mean_scales(self.task_classes),
            )

    def answers(self, x: Tensor) -> Tensor:
        """Logits of the aligned heads, [n, C]."""
        return self.logits(x, {}, self.aligned)


def mean_scales(task_classes: list[range]) -> Tensor:
    """What the mean of every class is multiplied by, [C]: 1 for classes of the last task, towards 0.9 for earlier ones."""
    T = len(task_classes)
    scales = [0.9 + 0.1 * (t + 1) / T for t, block in enumerate(task_classes) for _ in block]
    return torch.tensor(scales, dtype=torch.float64)
