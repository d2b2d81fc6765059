"""Fine-tuning of one linear head, task after task, with nothing against forgetting: the floor.

The head is over all classes seen, the loss too, and all rows are trained: without rows of earlier classes the loss pushes
their scores down as long as there is anything to gain. The backbone is frozen, so that this is the floor of heads on cached
features, not of fine-tuned backbones.
"""

from __future__ import annotations

from tosca_cache.learners.base import register_learner
from tosca_cache.learners.heads import LinearKind
from tosca_cache.learners.learning import SingleModuleLearner


@register_learner
class FineTune(SingleModuleLearner):
    """One linear head on the raw features, trained by cross-entropy over all classes seen."""

    name = "finetune"
    source = "sequential fine-tuning of a linear head, the usual lower bound"
    agrees = (
        "no official code: the usual floor, equal to a plain loop of SGD; models/finetune.py of "
        "sun-hailong/LAMDA-PILOT (commit 2647455) trains the backbone too, and by the task's own classes alone, "
        "where here nothing holds the scores of the old ones."
    )
    kind = LinearKind()
    own_classes = False
