"""The modules of all tasks so far, and the one head with its prototypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tosca_cache.config.schema import FLOWS
from tosca_cache.errors import RunError
from tosca_cache.luca.module import adapt, normalise
from tosca_cache.luca.parameters import Head, Luca, LucaShape


class Bank:
    """Frozen modules [T, ...] sharing one cosine head over all classes seen.

    flow: which branches the modules use.
    modules: one `Luca` of leading axis 1 a task.
    head: prototypes [1, C, d] and sigma [1, 1]; None before the first task.
    """

    def __init__(self, flow: str) -> None:
        self.flow = flow
        self.modules: list[Luca] = []
        self.head = None

    @property
    def head(self) -> Head | None:
        """The head; every time that it is set, its rows are brought to unit length once for all rows to be asked about."""
        return self._head

    @head.setter
    def head(self, head: Head | None) -> None:
        self._head = head
        self._directions = None if head is None else normalise(head.weight[0].detach())

    def __len__(self) -> int:
        return len(self.modules)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Modules T, rows C of the head and feature size d; zeros before the first task."""
        return (0, 0, 0) if self.head is None else (len(self), *self.head.weight.shape[1:])

    @torch.no_grad()
    def adapted(self, module: int, x: Tensor) -> Tensor:
        """Unit-length adapted features of one module, [n, d] to [n, d]; they never change once the module is frozen."""
        return self.adapted_by([module], x)[0]

    @torch.no_grad()
    def adapted_by(self, modules: Sequence[int], x: Tensor) -> Tensor:
        """Unit-length adapted features of several modules, [n, d] to [m, n, d]."""
        one = self.modules[modules[0]] if len(modules) == 1 else self.stacked(modules)
        return normalise(adapt(one, x, self.flow))

    def stacked(self, modules: Sequence[int] | None = None) -> Luca:
        """All modules as one, or some, [m, ...]: a copy."""
        chosen = self.modules if modules is None else [self.modules[module] for module in modules]
        return Luca(*map(torch.cat, zip(*chosen, strict=True)))

    @property
    def directions(self) -> tuple[Tensor, Tensor]:
        """Rows of the head at unit length, [C, d], and sigma, [1]."""
        if self.head is None or self._directions is None:
            raise RunError("the bank has no module yet", remedy="let it observe a task first")
        return self._directions, self.head.sigma[0].detach()

    @torch.no_grad()
    def logits(self, adapted: Tensor, classes: range | None = None) -> Tensor:
        """Logits over all classes seen, or over some, from unit-length adapted features, [n, d] to [n, C]."""
        directions, sigma = self.directions
        chosen = directions if classes is None else directions[classes.start : classes.stop]
        return sigma * (adapted @ chosen.T)

    def state(self) -> dict[str, Tensor]:
        """Modules (stacked, [T, ...]), prototypes [C, d] and sigma [1] by name, on the CPU; {} before any task."""
        if self.head is None:
            return {}
        return {f"module.{name}": tensor.cpu() for name, tensor in self.stacked()._asdict().items()} | {
            "prototypes": self.head.weight[0].cpu().contiguous(),
            "sigma": self.head.sigma[0].cpu().contiguous(),
        }

    @classmethod
    def from_state(cls, flow: str, state: Mapping[str, Tensor], device: torch.device | str = "cpu") -> Bank:
        """The bank that `state` described; raises `KeyError` if something is missing, `ValueError` if it does not fit."""
        bank = cls(flow)
        if state:
            _check(flow, state)
            stacked = Luca(*(state[f"module.{name}"].to(device) for name in Luca._fields))
            bank.modules = [Luca(*(t[i : i + 1] for t in stacked)) for i in range(len(stacked.norm_weight))]
            bank.head = Head(state["prototypes"].to(device).unsqueeze(0), state["sigma"].to(device).unsqueeze(0))
        return bank


def _check(flow: str, state: Mapping[str, Tensor]) -> None:
    """Raises `ValueError` for tensors that cannot be those of modules of one shape and a head."""
    norm, hidden, squeezed = (state[f"module.{name}"] for name in ("norm_weight", "down_bias", "squeeze_weight"))
    dimensions = [tensor.dim() for tensor in (norm, hidden, squeezed, state["prototypes"])]
    if flow not in FLOWS or dimensions != [2, 2, 3, 2] or not norm.numel():
        raise ValueError("modules of no flow or of no shape")
    T, d = norm.shape
    named = LucaShape(d, hidden.shape[1], squeezed.shape[1]).luca_shapes()
    expected = {f"module.{name}": (T, *tail) for name, tail in named.items()} | {"sigma": (1,)}
    expected["prototypes"] = (len(state["prototypes"]), d)
    wrong = [name for name, shape in expected.items() if tuple(state[name].shape) != shape]
    if wrong or any(state[name].dtype not in (torch.float32, torch.float64) for name in expected):
        raise ValueError(f"{', '.join(wrong) or 'tensors'} of another shape or type than the others")
