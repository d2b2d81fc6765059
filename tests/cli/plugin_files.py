"""Files of a user, as texts: learners and a router in one file each."""

HEAD = """
from pathlib import Path
import torch
from tosca_cache.learners import Learner, register_learner
from tosca_cache.learners.simplecil import SimpleCil
"""

RECENT = (
    HEAD
    + '''

@register_learner
class Recent(SimpleCil):
    """Class means; `weight` favours the classes of the last task."""

    name = "recent"
    source = "a test"

    def __init__(self, *, weight: float = 0.0, **common):
        super().__init__(**common)
        self.weight, self.last = weight, 0

    def observe(self, task, *, on_epoch=None):
        super().observe(task)
        self.last = task.classes.start

    def scores(self, features):
        scores = super().scores(features)
        scores[:, self.last:] += self.weight
        return scores
'''
)

FAILING = (
    HEAD
    + '''

@register_learner
class Failing(SimpleCil):
    """Fails with one seed, in its third task."""

    name = "failing"
    source = "a test"
    rehearsal = True

    def observe(self, task, *, on_epoch=None):
        if self.seed == 1994 and task.number == 2:
            raise KeyError("no third task_for | me")
        super().observe(task)
'''
)

HALTING = (
    HEAD
    + '''

@register_learner
class Halting(SimpleCil):
    """With a file `stop` beside it, Ctrl-C is pressed in the second task of the last seed but one."""

    name = "halting"
    source = "a test"

    def observe(self, task, *, on_epoch=None):
        if self.seed == 1995 and task.number == 1 and Path("stop").exists():
            raise KeyboardInterrupt
        super().observe(task)
'''
)

BOUND = (
    HEAD
    + '''

@register_learner
class Perfect(SimpleCil):
    """A bound that looks at the other test rows."""

    name = "perfect"
    source = "a test"
    bound = True
    transductive = True
'''
)

ROUTER = '''
import torch
from tosca_cache.routing import Router, register_router


@register_router
class First(Router):
    """Always the first module."""

    name = "first"
    source = "a test"

    def route(self, evidence):
        return torch.zeros(evidence.entropy.shape[1], dtype=torch.long)
'''
