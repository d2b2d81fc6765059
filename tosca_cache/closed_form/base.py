"""What has been learned as tensors by name, and what all closed-form classifiers are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor


class Stateful:
    """Its state is that of the attributes that `learned` names.

    An attribute is a tensor, a number, an object that is `Stateful`, or a list or dictionary of these, whose parts are
    named ATTRIBUTE.PART. What is None is left out.
    """

    learned: ClassVar[tuple[str, ...]] = ()

    def state(self) -> dict[str, Tensor]:
        """Everything that `load_state` needs; what a seed gives again (a random projection) is left out."""
        return _tensors({name: getattr(self, name) for name in self.learned})

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on where another one of the same arguments was; raises `KeyError` if something is missing."""
        for name in self.learned:
            setattr(self, name, _restored(getattr(self, name), name, state))
        self.changed()

    def changed(self) -> None:
        """Drops what followed from the state before it changed."""


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as parts of a larger state."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def unnamed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `named` put into a state."""
    mine = f"{prefix}."
    return {name.removeprefix(mine): tensor for name, tensor in state.items() if name.startswith(mine)}


def _tensors(attributes: Mapping[str, Any]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, value in attributes.items():
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, Stateful):
            found |= named(name, value.state())
        elif isinstance(value, list | dict):
            parts = value if isinstance(value, dict) else {str(i): part for i, part in enumerate(value)}
            found |= named(name, _tensors(parts))
        elif value is not None:
            found[name] = torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else torch.int64)
    return found


def _restored(value: Any, name: str, state: Mapping[str, Tensor]) -> Any:
    """What an attribute is that was `value` before."""
    if isinstance(value, Stateful):
        value.load_state(unnamed(name, state))
        return value
    if isinstance(value, list | dict):
        pairs = enumerate(value) if isinstance(value, list) else value.items()
        inner = [(key, one) for key, one in pairs if isinstance(one, Stateful)]
        for key, one in inner:
            one.load_state(unnamed(f"{name}.{key}", state))
        parts = unnamed(name, state)
        return value if inner else [parts[str(i)] for i in range(len(parts))] if isinstance(value, list) else parts
    if value is None:
        return state.get(name)
    return state[name] if isinstance(value, Tensor) else type(value)(state[name])


class Classifier(Stateful, ABC):
    """Sums over rows, and the scores that follow from them; float64 unless it says otherwise."""

    @abstractmethod
    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds rows: features [n, d], labels [n] below `classes`, the number of classes so far, C."""

    @abstractmethod
    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes for features [n, d], [n, C]."""

    def finalize(self) -> None:
        """Solves, if that was put off."""

    def forget(self, index: int) -> bool:
        """Drops what is known of a class, if that can be told apart; whether it could."""
        return False

    def memory_needed(self, rows: Sequence[int], classes: int, dim: int) -> int:
        """Bytes that it takes at most; see `Learner.memory_needed`."""
        return 0


class Solved(Classifier):
    """A classifier with weights that are solved for when they are first asked for after new rows."""

    _weights: Any = None

    @abstractmethod
    def solved(self) -> Any:
        """The weights, from the sums so far."""

    def weights(self) -> Any:
        """As `solved` gives them; solved for once."""
        if self._weights is None:
            self._weights = self.solved()
        return self._weights

    def finalize(self) -> None:
        """Solves for the weights."""
        self.weights()

    def changed(self) -> None:
        """Drops the weights."""
        self._weights = None
