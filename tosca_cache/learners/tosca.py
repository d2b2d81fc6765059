"""TOSCA (TMLR 2026): one LuCA module a task, one shared cosine head, and a router between the modules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tosca_cache.config import Settings
from tosca_cache.devices import free_memory, on_cores, one_thread
from tosca_cache.evaluate.audit import batch_modules
from tosca_cache.learners.base import FloatArray, Learner, Prediction, TestSet, register_learner
from tosca_cache.luca.bank import Bank
from tosca_cache.luca.parameters import Head, Luca, LucaShape, Parameters, initial_head, initial_luca
from tosca_cache.routing import ModuleOutputs, RoutedPrediction, make_router
from tosca_cache.tasks import Task
from tosca_cache.train.batches import Batch, task_batches
from tosca_cache.train.engines import Learned, divergence, learn_task
from tosca_cache.train.loop import EpochDone
from tosca_cache.train.stack import Lane, Member

ROWS_AT_ONCE = 4096
# Test rows of a group, and rows of all modules together, that are computed as one: for a core's cache, and to fill a GPU.
AT_ONCE = {"cpu": (ROWS_AT_ONCE, 1), "cuda": (1 << 16, 1 << 18)}
BATCH_ROUTER = "batch"
MOST_KEPT = 0.25  # of the free memory: how much adapted test rows may take whenever some are added


@register_learner
class Tosca(Learner):
    """The published method on cached features.

    Arguments:
        router: name of a router (`tosca_cache.routing.ROUTERS`), or `batch`: the reference's mean entropy over batches of
            `routing_batch_size` rows in file order, which leaks the task and exists to reproduce published figures.
        dtype: in what modules are trained.
    """

    name = "tosca"
    source = "TOSCA (TMLR 2026)"
    agrees = (
        "equal to the official code (muratonuryildirim/tosca, by `tosca conformance` on the recorded runs of "
        "tests/golden) in training and outputs; the default router decides row by row, because the published mean "
        "over 48 rows in file order (`router=batch`) leaks the task."
    )
    learned: ClassVar[tuple[str, ...]] = ("blocks", "router")
    on_cpu: ClassVar[tuple[str, ...]] = learned

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        router: str = "sample",
        routing_batch_size: int = 48,
        dtype: torch.dtype = torch.float32,
        **common: Any,
    ) -> None:
        super().__init__(settings=settings, **common)
        self.dtype = dtype
        self.router = None if router == BATCH_ROUTER else make_router(router)
        self.transductive = self.router is None
        self.routing_batch_size = routing_batch_size
        self.bank = Bank(self.settings.flow)
        self.losses: list[NDArray[np.float64]] = []

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Learns a task from a start and over steps that both follow from the seed."""
        d = task.train.features.shape[2]
        luca = initial_luca(self.shape(d), self.seed, task.number)
        head = self.bank.head or initial_head(d, task.classes.stop, self.seed)
        self.learn(task, luca, head, task_batches(task, self.seed, self.settings), on_epoch=on_epoch)

    def learn(
        self, task: Task, luca: Luca, head: Head, batches: Iterable[Batch], *, on_epoch: EpochDone | None = None
    ) -> Learned:
        """Learns a task from a given start over given steps; `observe` draws both from the seed.

        Arguments:
            luca, head: as they start, [1, ...]; a head over fewer classes is grown by zero rows.
            batches: rows and views of every step.
        """
        features = self.tensor(task.train.features)  # [n, 1+V, d]
        labels = torch.from_numpy(task.train.labels).to(self.device)
        shape = self.shape(features.shape[2])
        parameters = Parameters(shape, task.classes.stop, device=self.device, dtype=self.dtype)
        parameters.set_luca(luca)
        parameters.set_head(head)
        lane = Lane(features, labels, list(batches))
        member = Member(self.settings)
        learned = learn_task(parameters, [lane], [member], task.classes, self.engine, on_epoch=on_epoch)
        self.losses.append(learned.losses[0])
        self.diverged = self.diverged or divergence(learned.losses[0], parameters.flat[0], task.number)
        luca = Luca(*(t.detach().clone() for t in parameters.luca))
        self.freeze(task, luca, Head(*(t.detach().clone() for t in parameters.head)))
        return learned

    def freeze(self, task: Task, luca: Luca, head: Head) -> None:
        """Adds a trained module to the bank, takes over the head trained with it, and fits the router."""
        self.bank.modules.append(luca)
        self.bank.head = head
        self.add_task(task.classes)
        if self.router is not None:
            self.router.fit(task, self.bank)

    def shape(self, dim: int) -> LucaShape:
        """Sizes of the modules at feature size `dim`."""
        return LucaShape.from_ratios(dim, self.settings.mlp_ratio, self.settings.se_ratio)

    def scores(self, features: FloatArray) -> FloatArray:
        """Scores of the module (or modules) that the router chooses for each row, [n, C]."""
        test_set = self.test_set()
        test_set.add(features)
        return test_set.scores()

    def test_set(self) -> CachedTestFeatures:
        """Test rows whose adapted features are kept."""
        return CachedTestFeatures(self)

    def route(self, outputs: ModuleOutputs) -> RoutedPrediction:
        """The module and the predicted class of each sample."""
        if self.router is not None:
            return self.router.predict(outputs)
        chosen = batch_modules(outputs.entropy.cpu().numpy(), self.routing_batch_size)
        modules = torch.from_numpy(chosen).to(outputs.entropy.device)
        return RoutedPrediction(modules, outputs.labels_of(modules))

    @property
    def router_name(self) -> str:
        """The name of its router."""
        return BATCH_ROUTER if self.router is None else self.router.name

    def state(self) -> dict[str, Tensor]:
        """Modules, head, classes of each task, and what the router has learned."""
        return self.bank.state() | super().state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes all of that over; losses are not kept."""
        self.bank = Bank.from_state(self.settings.flow, state, self.device)
        super().load_state(state)

    @property
    def trainable_parameters(self) -> int:
        """One module, the head and its scale."""
        head = self.bank.head
        return 0 if head is None else sum(t.numel() for t in (*self.bank.modules[-1], *head))

    def tensor(self, features: FloatArray) -> Tensor:
        """Features on the device of training, in its dtype."""
        return torch.from_numpy(np.ascontiguousarray(features)).to(self.device).to(self.dtype)


class CachedTestFeatures(TestSet):
    """Test rows whose adapted features are computed once for every module and kept, as long as there is memory for them.

    A stored module and a test row never change, so after each task only the new module meets the old rows and only the old
    modules meet the new rows; what is repeated is the product with the head, whose rows (and sigma) all go on training: see
    "Consequences" in reference/tosca.md. What would take more than a part of the memory that is free (`MOST_KEPT`) is
    computed anew whenever it is needed: the numbers are the same. Augmented views are adapted when a router asks for them.
    """

    learner: Tosca

    def __init__(self, learner: Tosca) -> None:
        super().__init__(learner)
        self.rows: list[Tensor] = []  # one [n, d] a part, as stored
        self.views: list[FloatArray] = []  # one [n, V, d] a part, as stored; V may be 0
        self.adapted: list[list[Tensor]] = []  # [part][module], each [n, d], unit length; those of first modules
        self.seconds = {"adapt": 0.0, "head": 0.0}
        self._at_once = AT_ONCE["cuda" if learner.device.type == "cuda" else "cpu"]
        self._known: tuple[Tensor, int, Tensor, Tensor] | None = None  # directions, parts; their entropy and prediction

    def add(self, features: FloatArray) -> None:
        """Adds test features: clean ones, [n, d], or clean ones followed by augmented views, [n, 1+V, d]."""
        every = features[:, None] if features.ndim == 2 else features
        self.rows.append(torch.from_numpy(np.ascontiguousarray(every[:, 0])).to(self.learner.device))
        self.views.append(every[:, 1:])
        self.adapted.append([])

    @torch.inference_mode()
    def outputs(self) -> ModuleOutputs:
        """Entropy and prediction of every module for all rows added, [T, n], and a way to ask for more."""
        threads = torch.get_num_threads() if self.learner.device.type == "cpu" else 1
        with one_thread():
            directions, parts = self.learner.bank.directions[0], len(self.rows)
            if self._known is None or self._known[0] is not directions or self._known[1] != parts:
                self._known = directions, parts, *self._entropy_and_prediction(threads)
            features = torch.cat(self.rows).to(self.learner.dtype)
            return ModuleOutputs(features, *self._known[2:], tuple(self.learner.task_classes), lazy=self)

    def predict(self) -> Prediction:
        """Predictions of the routed modules for all rows added."""
        routed = self.learner.route(self.outputs())
        return Prediction(routed.labels.cpu().numpy(), routed.modules.cpu().numpy())

    @one_thread()
    @torch.inference_mode()
    def logits(self, module: int) -> Tensor:
        """Logits of one module for all rows added, [n, C]."""
        bank = self.learner.bank
        return torch.cat([bank.logits(chunk) for chunk in self.adapted_rows(module).split(ROWS_AT_ONCE)])

    @one_thread()
    @torch.inference_mode()
    def adapted_rows(self, module: int) -> Tensor:
        """Unit-length adapted features of one module for all rows added, [n, d]."""
        self._adapt(1)
        return torch.cat([self._adapted(part, module) for part in range(len(self.rows))])

    @property
    def view_count(self) -> int:
        """Augmented views of every row added."""
        return min((part.shape[1] for part in self.views), default=0)

    @one_thread()
    @torch.inference_mode()
    def view_logits(self, module: int, view: int, classes: range) -> Tensor:
        """Logits of one module over some classes for one augmented view (counted from 0) of all rows added."""
        bank = self.learner.bank
        return torch.cat(
            [
                bank.logits(bank.adapted(module, chunk), classes)
                for part in self.views
                for chunk in self.learner.tensor(part[:, view]).split(ROWS_AT_ONCE)
            ]
        )

    @torch.inference_mode()
    def scores(self) -> FloatArray:
        """What the router makes of the modules' logits for all rows added, [n, C]."""
        outputs, router = self.outputs(), self.learner.router
        scores = outputs.logits_of(self.learner.route(outputs).modules) if router is None else router.scores(outputs)
        found: FloatArray = scores.cpu().numpy()
        return found

    def _entropy_and_prediction(self, threads: int) -> tuple[Tensor, Tensor]:
        """[T, n] each; some rows by one module on each core at a time, and nothing of size [T, n, C] is made."""
        self._adapt(threads)
        start, modules, groups = perf_counter(), range(len(self.learner.bank)), self._groups()
        at_once = max(1, self._at_once[1] // max(1, sum(map(len, self.rows))))
        some = [modules[first : first + at_once] for first in range(0, len(modules), at_once)]
        found = iter(on_cores(self._scored, [(part, group) for part in some for group in groups], threads))
        rows = [[torch.cat(each, 1) for each in zip(*islice(found, len(groups)), strict=True)] for _ in some]
        entropy, prediction = (torch.cat(each) for each in zip(*rows, strict=True))
        self.seconds["head"] += perf_counter() - start
        return entropy, prediction

    @torch.inference_mode()
    def _scored(self, pair: tuple[range, range]) -> tuple[Tensor, Tensor]:
        """Entropy and prediction of some modules for some parts of the rows, [m, n] each."""
        modules, group = pair
        parts = [self._adapted(part, module) for module in modules for part in group]
        found = self.learner.engine.entropy_and_prediction(parts, *self.learner.bank.directions)
        return found[0].unflatten(0, (len(modules), -1)), found[1].unflatten(0, (len(modules), -1))

    def _groups(self) -> list[range]:
        """The parts, in runs of about `ROWS_AT_ONCE` rows."""
        groups, start, rows = [], 0, 0
        for part, mine in enumerate(self.rows):
            rows += len(mine)
            if rows >= self._at_once[0] or part + 1 == len(self.rows):
                groups.append(range(start, part + 1))
                start, rows = part + 1, 0
        return groups

    def _adapt(self, threads: int) -> None:
        """Computes what is to be kept; on a CPU a part of the rows by one module a core at a time."""
        start = perf_counter()
        room = MOST_KEPT * free_memory(self.learner.device)
        missing: list[tuple[list[int], range]] = []
        for part, done in enumerate(self.adapted):
            size = self.rows[part].numel() * torch.finfo(self.learner.dtype).bits // 8
            count = min(len(self.learner.bank) - len(done), int(room // max(size, 1)))
            modules = range(len(done), len(done) + count)
            if self._at_once[1] == 1:
                missing += [([part], modules[m : m + 1]) for m in range(count)]
            elif count and missing and missing[-1][1] == modules:
                missing[-1][0].append(part)
            elif count:
                missing.append(([part], modules))
            room -= count * size
        for (parts, _), found in zip(missing, on_cores(self._computed, missing, threads), strict=True):
            for part, rows in zip(parts, found.split([len(self.rows[part]) for part in parts], 1), strict=True):
                self.adapted[part] += list(rows)
        self.seconds["adapt"] += perf_counter() - start

    def _adapted(self, part: int, module: int) -> Tensor:
        done = self.adapted[part]
        return done[module] if module < len(done) else self._computed(([part], range(module, module + 1)))[0]

    @torch.inference_mode()
    def _computed(self, pair: tuple[list[int], range]) -> Tensor:
        """Adapted rows of some parts by some modules, [m, n, d]."""
        parts, modules = pair
        size = max(ROWS_AT_ONCE, self._at_once[1] // len(modules))
        chunks = torch.cat([self.rows[part] for part in parts]).split(size)
        return torch.cat([self.learner.bank.adapted_by(modules, chunk.to(self.learner.dtype)) for chunk in chunks], 1)
