"""APER in feature space (after arXiv 2303.07338): SimpleCIL on each feature beside its adapted form (methods.md 1.3).

The published method trains a module inside the backbone on the first task and concatenates the class tokens with and
without it. A frozen store has one class token only, so here the module stands behind the backbone: figures are no
reproductions of the published ones, for which there is `simplecil` on a store of `tosca extract --with-base`
(docs/adapt.md). As there, the module is trained under a cosine head on the first task's augmented views, then frozen, and
class means are of clean rows. Training follows `settings`, whose defaults are TOSCA's and not APER's (learning rate 0.01
and weight decay 5e-4).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tosca_cache.closed_form.means import NearestMean
from tosca_cache.learners.base import FloatArray, Learner, named, register_learner, unnamed
from tosca_cache.learners.film import Film
from tosca_cache.learners.tosca import ROWS_AT_ONCE, Tosca
from tosca_cache.luca.module import adapt
from tosca_cache.luca.parameters import Luca
from tosca_cache.tasks import Task
from tosca_cache.train.loop import EpochDone


class Aper(Learner):
    """Class means of concat[x, adapted x], [C, 2d], and one frozen module."""

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = NearestMean()
        self.trained_numbers = 0

    @abstractmethod
    def learn_module(self, task: Task, on_epoch: EpochDone | None) -> int:
        """Trains the module on the first task and says how many numbers were trained."""

    @abstractmethod
    def adapted(self, x: Tensor) -> Tensor:
        """Adapted features of features, both [n, d]."""

    @abstractmethod
    def module_state(self) -> dict[str, Tensor]:
        """The module; {} before the first task."""

    @abstractmethod
    def load_module(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a module."""

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Adds the means of the task's classes; the first task trains the module before that."""
        self.trained_numbers = 0 if len(self.classifier.means) else self.learn_module(task, on_epoch)
        joined = self.joined(task.train.features[:, 0])
        self.classifier.observe(joined, torch.from_numpy(task.train.labels), task.classes.stop)

    @torch.no_grad()
    def joined(self, features: FloatArray) -> Tensor:
        """concat[x, adapted x] of features [n, d], [n, 2d] on the CPU."""
        parts = []
        for rows in torch.from_numpy(features).split(ROWS_AT_ONCE):
            x = rows.to(self.device).float()
            parts.append(torch.cat([x, self.adapted(x)], 1).cpu())
        return torch.cat(parts)

    def scores(self, features: FloatArray) -> FloatArray:
        """Cosines with all class means, [n, C]."""
        scores: FloatArray = self.classifier.scores(self.joined(features)).numpy()
        return scores

    def state(self) -> dict[str, Tensor]:
        """The class means and the module."""
        return self.classifier.state() | named("module", self.module_state())

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes both over."""
        self.classifier.load_state(dict(state))
        self.load_module(unnamed("module", state))

    @property
    def trainable_parameters(self) -> int:
        """The module and its head for the first task, 0 for later ones and after `load_state`."""
        return self.trained_numbers


@register_learner
class AperLuca(Aper):
    """With the LuCA module that TOSCA trains on the first task."""

    name = "aper-luca"
    source = "APER (arXiv 2303.07338) in feature space, with LuCA"
    agrees = (
        "differs: a LuCA module behind the backbone, trained by the settings of all learners, instead of a module "
        "inside it; the class means and cosines that follow are equal to the official code "
        "(sun-hailong/LAMDA-PILOT, models/aper_adapter.py and utils/inc_net.py, commit 2647455)."
    )

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.luca: Luca | None = None

    def learn_module(self, task: Task, on_epoch: EpochDone | None) -> int:
        """TOSCA's first task; its head is thrown away."""
        first = Tosca(self.settings, seed=self.seed, device=self.device, engine=self.engine)
        first.observe(task, on_epoch=on_epoch)
        (self.luca,) = first.bank.modules
        return first.trainable_parameters

    def adapted(self, x: Tensor) -> Tensor:
        """LuCA(x), not normalised."""
        return x if self.luca is None else adapt(self.luca, x, self.settings.flow)[0]

    def module_state(self) -> dict[str, Tensor]:
        """LuCA's tensors, [1, ...]."""
        return {} if self.luca is None else self.luca._asdict()

    def load_module(self, state: Mapping[str, Tensor]) -> None:
        """Takes them over."""
        self.luca = Luca(**{name: t.to(self.device) for name, t in state.items()}) if state else None


@register_learner
class AperFilm(Aper):
    """With a gain and a shift for each channel."""

    name = "aper-film"
    source = "APER (arXiv 2303.07338) in feature space, with FiLM"
    agrees = (
        "differs: a gain and a shift behind the backbone, trained by the settings of all learners, instead of a "
        "module inside it; the class means and cosines that follow are equal to the official code "
        "(sun-hailong/LAMDA-PILOT, models/aper_ssf.py and utils/inc_net.py, commit 2647455)."
    )

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.film: Film | None = None

    def learn_module(self, task: Task, on_epoch: EpochDone | None) -> int:
        """Trains gamma and beta."""
        self.film = Film.trained(task, self.settings, seed=self.seed, device=self.device, on_epoch=on_epoch)
        return self.film.trained_numbers

    def adapted(self, x: Tensor) -> Tensor:
        """gamma x + beta."""
        return x if self.film is None else self.film.apply(x)

    def module_state(self) -> dict[str, Tensor]:
        """gamma and beta."""
        return {} if self.film is None else self.film.state()

    def load_module(self, state: Mapping[str, Tensor]) -> None:
        """Takes them over."""
        self.film = Film.from_state(state, self.device) if state else None
