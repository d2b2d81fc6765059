"""The contract of a learner: it sees one task at a time and scores all classes seen."""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from annotated_types import Gt
from numpy.typing import NDArray
from torch import Tensor

from tosca_cache.closed_form.base import Stateful
from tosca_cache.config import Settings
from tosca_cache.config.checks import nearest
from tosca_cache.devices import free_memory, total_memory
from tosca_cache.errors import ToscaWarning, UsageError
from tosca_cache.shown import Shown
from tosca_cache.tasks import Task, TaskStream
from tosca_cache.train.engines import Engine
from tosca_cache.train.loop import EpochDone

__all__ = [
    "LEARNERS",
    "FloatArray",
    "IntArray",
    "Learner",
    "Prediction",
    "TestSet",
    "learner_type",
    "register_learner",
]

SCORES_AT_ONCE = 2**22  # of test rows, in memory together
LEAST_ROWS = 256
Positive = Annotated[float, Gt(0)]
FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class Prediction(Shown):
    """labels: predicted class indices, [n]; in an `Outcome`: the classes that they stand for.

    modules: the module that answered, [n], None without modules.
    tasks: the task that brought the predicted label, [n]; only in an `Outcome`.
    """

    labels: IntArray
    modules: IntArray | None = None
    tasks: IntArray | None = None

    def facts(self) -> dict[str, Any]:
        """What it is."""
        return {"rows": len(self.labels), "modules": self.modules is not None}

    def reported(self, stream: TaskStream) -> Prediction:
        """As it is scored: the classes that a stream reports for the class indices, and the tasks of these."""
        return Prediction(stream.class_of[self.labels], self.modules, stream.task_of_class()[self.labels])


class TestSet:
    """Test rows that are asked about after every task.

    Rows are added as their classes appear; `predict` answers for all rows added so far. A method whose work on fixed rows
    can be kept between tasks has a watch of its own.
    """

    classes: int | None = None  # seen so far; set by the protocol, which has scores checked by it

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.parts: list[FloatArray] = []

    def add(self, features: FloatArray) -> None:
        """Adds test features: clean ones, [n, d], or clean ones followed by augmented views, [n, 1+V, d]."""
        self.parts.append(features if features.ndim == 2 else np.ascontiguousarray(features[:, 0]))

    def predict(self) -> Prediction:
        """Predictions for all rows added, in the order of adding; raises `UsageError` for scores that cannot be right."""
        rows = np.concatenate(self.parts)
        count, at_once = max(1, len(rows)), max(LEAST_ROWS, SCORES_AT_ONCE // (self.classes or 1))
        starts = range(0, count, count if self.learner.transductive else at_once)
        return Prediction(np.concatenate([self._labels(rows[start:][: starts.step]) for start in starts]))

    def _labels(self, rows: FloatArray) -> IntArray:
        scores = np.asarray(self.learner.scores(rows))
        wanted = (len(rows), self.classes or scores.shape[-1])
        if scores.shape != wanted or np.isnan(scores).any():
            found = f"shape {list(scores.shape)}" if scores.shape != wanted else "NaN among them"
            raise UsageError(
                f"learner {self.learner.name}: its scores have {found}",
                where=inspect.getsourcefile(type(self.learner)),
                remedy=f"return a number for each row and each class seen so far, here of shape {list(wanted)}",
            )
        labels: IntArray = scores.argmax(1)
        return labels


class Learner(Stateful, ABC):
    """A learner of one task after another on cached features: of new classes, or of a new domain each.

    Its classes are class indices, of which each task brings a block of its own. Where tasks are domains, labels of several
    blocks may stand for one class; a learner is not told, and the evaluation maps its answers (`TaskStream.class_of`).

    name: as in `--methods`. source: where it comes from. what: what it is, in a sentence; by default its file's first.
    agrees: in a sentence, how it stands to the published method: "equal to the official code (repository, file, commit)",
        "equal to the paper's equations (section)", or "differs: ..." with how and why. tests/learners/test_official.py
        holds what is said to be equal to plain code.
    rehearsal: True if it keeps train rows of earlier tasks.
    transductive: True if its answer for a row may depend on the other rows it is asked about; ask the learner itself, whose
        options may make it so.
    diverged: why its training stopped giving numbers, if it did.
    adds_rows: True if a task may bring more rows of classes that it knows.
    pieces: `last` if it learns from one vector a view, the last piece of a store's features; `all` if from all pieces
        behind one another (the [CLS] of several blocks, see `extract.pieces`). Its d is the width of what it is given.
    learned: the attributes in which what it has learned stands (`Stateful`). on_cpu: how the names of those begin that
        it computes with on the CPU, whatever its device.
    bound: True if it is a bound to compare learners with (it learns all tasks jointly, or is told the true task).

    Arguments of every learner, all by keyword (a learner may have more of its own, with defaults; what they take stands in
    their annotations, which `options.check_options` holds values to):
        seed: of everything random; a learner draws by (seed, what for, task), never from a stream that goes on between
            tasks, so that a learner that was saved and loaded goes on as if it had not been.
        settings: of what it trains by gradient, if anything; the defaults are TOSCA's published ones.
        device: where it computes. engine: what trains LuCA modules; PyTorch if None.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    agrees: ClassVar[str] = ""
    what: ClassVar[str] = ""
    rehearsal: ClassVar[bool] = False
    transductive: bool = False
    bound: ClassVar[bool] = False
    pieces: ClassVar[str] = "last"
    adds_rows: bool = False
    diverged: str | None = None
    on_cpu: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        seed: int = 1993,
        settings: Settings | None = None,
        device: torch.device | str = "cpu",
        engine: Engine | None = None,
    ) -> None:
        self.seed, self.device = seed, torch.device(device)
        self.settings = Settings() if settings is None else settings
        self.engine = engine or Engine()
        self.blocks = torch.empty(0, 2, dtype=torch.int64)  # first and one after the last class of each task

    @property
    def task_classes(self) -> list[range]:
        """The classes of each task, of learners that keep them (`add_task`)."""
        return [range(start, stop) for start, stop in self.blocks.tolist()]

    def add_task(self, classes: range) -> None:
        """Notes the classes of a task."""
        self.blocks = torch.cat([self.blocks.cpu(), torch.tensor([[classes.start, classes.stop]])])

    @abstractmethod
    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Learns from the rows of one task; tasks come in order, each once."""

    @classmethod
    def observe_together(cls, learners: Sequence[Self], tasks: Sequence[Task]) -> None:
        """One task for each of several learners that differ in their seed; the default lets them learn one by one."""
        for learner, task in zip(learners, tasks, strict=True):
            learner.observe(task)

    def finalize(self) -> None:
        """Does what `observe` left to the first question asked (a solve, a fit), so that it counts as learning."""
        return

    @abstractmethod
    def scores(self, features: FloatArray) -> FloatArray:
        """Scores of clean features [n, d] over all classes seen, [n, C]; the largest is the prediction."""

    def test_set(self) -> TestSet:
        """Test rows to be asked about repeatedly."""
        return TestSet(self)

    def state(self) -> dict[str, Tensor]:
        """All that was learned so far, on the CPU; what a seed gives again (a random projection) is left out."""
        return {name: tensor.detach().cpu() for name, tensor in super().state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on where another learner of the same arguments was."""
        super().load_state(
            {name: t.to("cpu" if name.startswith(self.on_cpu) else self.device) for name, t in state.items()}
        )

    def forget_class(self, index: int) -> bool:
        """Removes what a class left in the state, if that can be told apart; whether it could.

        Scores of the other classes are then what they would be if the class had never been learned.
        """
        return False

    def memory_needed(self, rows: Sequence[int], classes: int, dim: int) -> int:
        """Bytes that it takes at most, beside the features; 0 if it is next to nothing.

        Arguments:
            rows: train rows of each task. classes: of all tasks. dim: of the features.
        """
        return 0

    @property
    def stored_numbers(self) -> int:
        """How many numbers it has to keep between tasks."""
        return sum(tensor.numel() for tensor in self.state().values())

    @property
    def trainable_parameters(self) -> int:
        """How many numbers the last task trained by gradient; 0 for closed forms."""
        return 0


def check_memory(learner: Learner, stream: TaskStream) -> None:
    """Says it if a learner will need more memory for a stream than is free.

    Raises `UsageError` if it is more than its device has.
    """
    dim = stream.seen_by(learner.pieces).dim
    needed = learner.memory_needed(stream.train_counts().tolist(), len(stream.class_names), dim)
    free, total = free_memory(learner.device), total_memory(learner.device)
    problem = f"{learner.name} will need about {needed / 1e9:.2g} GB of memory"
    remedy = "give it fewer random features, see `tosca methods`"
    if needed > total:
        raise UsageError(f"{problem}; there are {total / 1e9:.2g} GB", where=learner.name, remedy=remedy)
    if needed > free:
        warnings.warn(f"{problem}; {free / 1e9:.2g} GB are free ({remedy})", ToscaWarning, stacklevel=3)


LEARNERS: dict[str, type[Learner]] = {}


def register_learner(learner: type[Learner]) -> type[Learner]:
    """Class decorator: makes a learner known by its `name`."""
    LEARNERS[learner.name] = learner
    return learner


def learner_type(name: str, where: str = "--methods") -> type[Learner]:
    """The class of a learner; raises `UsageError` if the name is unknown, with the nearest that is."""
    if name not in LEARNERS:
        remedy = f"did you mean {nearest(name, LEARNERS)!r}? Known: {', '.join(sorted(LEARNERS))}"
        raise UsageError(f"unknown method {name!r}", where=where, remedy=remedy)
    return LEARNERS[name]
