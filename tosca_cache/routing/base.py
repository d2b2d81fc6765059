"""The contract of a router: one module index a sample, from that sample alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tosca_cache.errors import UsageError
from tosca_cache.luca.bank import Bank
from tosca_cache.tasks import Task


@dataclass(frozen=True)
class Evidence:
    """What the modules say of n samples; no labels.

    features: clean features before any module, [n, d].
    entropy: H = -sum p log(p + 1e-9) of every module over all classes seen, [T, n].
    prediction: most likely class of every module, [T, n].
    blocks: the classes that each module was trained for, [T]; `blocks[-1].stop` is the number of classes seen.
    logits: gives the logits of one module over all classes seen, [n, C]; computed when asked for.
    """

    features: Tensor
    entropy: Tensor
    prediction: Tensor
    blocks: tuple[range, ...]
    logits: Callable[[int], Tensor]


class Router(ABC):
    """Maps each sample to a module of the bank.

    name: as in `--router`. source: where it comes from. stores: what it keeps of a task besides the module.

    A router may not depend on the other samples it is asked about: permuting or splitting them must not change an answer.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    stores: ClassVar[str] = "nothing"

    def fit(self, task: Task, bank: Bank) -> None:  # noqa: B027 (most routers store nothing)
        """Learns from the train rows of a task just added to the bank; the default learns nothing."""

    @abstractmethod
    def route(self, evidence: Evidence) -> Tensor:
        """Index of the module that answers for each sample, [n]."""

    def state(self) -> dict[str, Tensor]:
        """What `fit` has learned so far; the default has learned nothing."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:  # noqa: B027 (most routers store nothing)
        """Takes over what another router of this kind had learned."""


ROUTERS: dict[str, type[Router]] = {}


def register_router(router: type[Router]) -> type[Router]:
    """Class decorator: makes a router known by its `name`."""
    ROUTERS[router.name] = router
    return router


def make_router(name: str) -> Router:
    """A fresh router; raises `UsageError` if the name is unknown."""
    if name not in ROUTERS:
        raise UsageError(
            f"unknown router {name!r}",
            where="--router",
            remedy=f"choose one of {', '.join([*sorted(ROUTERS), 'batch'])}",
        )
    return ROUTERS[name]()
