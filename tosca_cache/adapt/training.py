"""Training the modules and a cosine head; from every finished epoch training can go on, bit for bit on a CPU.

Published defaults, the same in APER (RevisitingCIL, models/adam_*.py) and in phase 1 of RanPAC (its settings): SGD,
momentum 0.9, learning rate 0.01, weight decay 5e-4, 20 epochs, batch 48, cosine schedule to 0, cosine head with a learned
factor that begins at 1. AdamW's defaults (learning rate 3e-3, weight decay 5e-4) are those of LayUP's first session, whose
factor begins at 30.

What differs: some train rows are held out, and the epoch is kept that does best on them (a share of 0 trains on all rows
and keeps the last epoch, as published).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from torch import nn
from torch.nn import functional

from tosca_cache.adapt.first_task import FirstTask, ImageBatches
from tosca_cache.config.checks import Count, one_of
from tosca_cache.errors import BackboneError
from tosca_cache.extract import tuning
from tosca_cache.extract.backbone import Forward
from tosca_cache.extract.names import check_options, option
from tosca_cache.seeds import derive_seed, numpy_generator

LEARNING_RATES = {"sgd": 0.01, "adamw": 3e-3}
_Positive = Annotated[float, Gt(0)]


@dataclass(frozen=True)
class TrainingOptions:
    """How to train; see the head of this file. lr: None for the optimizer's own. patience: epochs without a better one.

    bf16: autocast of the forward pass; parameters and optimizer stay float32. checkpointing: activations are computed
    twice instead of kept.
    """

    epochs: int = option(20, Count)
    batch_size: int = option(48, Annotated[int, Ge(2)])
    optimizer: str = option("sgd", one_of(LEARNING_RATES))
    lr: float | None = option(None, _Positive)
    weight_decay: float = option(5e-4, Annotated[float, Ge(0)])
    scale: float = option(1.0, _Positive)
    held_out: float = option(0.1, Annotated[float, Ge(0), Le(0.5)])
    patience: int = option(5, Count)
    bf16: bool = False
    checkpointing: bool = False

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def rate(self) -> float:
        """The learning rate at the start."""
        return LEARNING_RATES[self.optimizer] if self.lr is None else self.lr


@dataclass(frozen=True)
class Epoch:
    """What came of an epoch: mean training loss, and held-out loss and accuracy (percent); None without held-out rows."""

    loss: float
    held_out_loss: float | None = None
    held_out_accuracy: float | None = None

    @property
    def merit(self) -> tuple[float, float]:
        """Greater is better: held-out accuracy, among equals the lower loss."""
        return (self.held_out_accuracy or 0.0, -(self.held_out_loss or 0.0))


class CosineHead(nn.Module):
    """sigma * cos(x, w_c): [n, d] -> [n, C]; w uniform in +-1/sqrt(d), sigma learned."""

    def __init__(self, dim: int, classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, dim).uniform_(-(dim**-0.5), dim**-0.5))
        self.sigma = nn.Parameter(torch.tensor(float(scale)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features -> logits."""
        return self.sigma * functional.linear(functional.normalize(x), functional.normalize(self.weight))


@dataclass
class State:
    """Where training is: all tensors, and the record of every finished epoch. best: the epoch that is kept, from 1."""

    tensors: tuning.Tensors = field(default_factory=dict)
    history: list[Epoch] = field(default_factory=list)
    best: int = 0

    def to_record(self) -> dict[str, Any]:
        """All but the tensors, as plain JSON values."""
        return {"history": [asdict(epoch) for epoch in self.history], "best": self.best}

    @classmethod
    def from_record(cls, tensors: tuning.Tensors, record: dict[str, Any]) -> State:
        """The inverse of `to_record`."""
        return cls(tensors, [Epoch(**epoch) for epoch in record["history"]], record["best"])


class Training:
    """The modules of one kind inside a model, and a head, being trained on a first task.

    Arguments:
        forward: the frozen backbone's pass in float32; its model is copied.
        seed: of the random starts, the order of batches and the crops.
    """

    def __init__(
        self,
        forward: Forward,
        kind: str,
        settings: dict[str, float],
        task: FirstTask,
        options: TrainingOptions,
        seed: int,
    ) -> None:
        self.task, self.options, self.seed = task, options, seed
        self._forward, self.device = forward, forward.device
        self.model = copy.deepcopy(forward.model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "adapt start", kind))
            self.trained = tuning.insert(self.model.cpu(), kind, settings)
            self.head = CosineHead(forward.dim, len(task.classes), options.scale)
        self.model.to(self.device)
        self.head.to(self.device)
        if options.checkpointing:
            vit: Any = self.model
            vit.set_grad_checkpointing()
        parameters = [*self.trained, *self.head.parameters()]
        if options.optimizer == "sgd":
            self.optimizer: torch.optim.Optimizer = torch.optim.SGD(
                parameters, options.rate, momentum=0.9, weight_decay=options.weight_decay
            )
        else:
            self.optimizer = torch.optim.AdamW(parameters, options.rate, weight_decay=options.weight_decay)
        self.state = State()

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the last ones have brought nothing."""
        done, options = len(self.state.history), self.options
        waited = done - self.state.best if len(self.task.held_rows) else 0
        return done >= options.epochs or waited >= options.patience

    def parts(self) -> tuning.Tensors:
        """The trained tensors of the epoch that is kept, by their names in the model."""
        return {n.removeprefix("best."): t for n, t in self.state.tensors.items() if n.startswith("best.")}

    def resume(self, state: State) -> None:
        """Goes on from a state that `run_epoch` has left."""
        tensors = state.tensors
        if wrong := tuning.put_tensors(self.model, self.trained, _below(tensors, "now.")):
            raise BackboneError(
                f"the state of the training is another one's: {wrong[0]}", remedy="remove its folder (NAME.partial)"
            )
        self.head.load_state_dict(_below(tensors, "head."))
        packed = self.optimizer.state_dict()
        found: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in _below(tensors, "optimizer.").items():
            number, _, key = name.partition(".")
            found.setdefault(int(number), {})[key] = tensor
        self.optimizer.load_state_dict(packed | {"state": found})
        self.state = state

    def run_epoch(self, batches: ImageBatches, on_images: Callable[[int], None]) -> Epoch:
        """One epoch over the task's rows, and a look at the held-out ones; on_images: told of images that are done."""
        number = len(self.state.history) + 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.rate * (1 + np.cos(np.pi * (number - 1) / self.options.epochs)) / 2
        order = numpy_generator(self.seed, "adapt order", number).permutation(len(self.task.rows))
        chosen = np.split(order, range(self.options.batch_size, len(order), self.options.batch_size))
        total = 0.0
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive_seed(self.seed, "adapt dropout", number))
            self._train_modules()
            pixels = batches.of([self.task.rows[part] for part in chosen], number)
            for part, images in zip(chosen, pixels, strict=True):
                total += self._step(images, self.task.labels[part]) * len(part)
                on_images(len(part))
        epoch = Epoch(total / len(order), *self._look_at_held_out(batches))
        self._keep(epoch)
        return epoch

    def _train_modules(self) -> None:
        """Dropout is of the modules alone: the frozen layers stay as they are."""
        self.model.eval()
        for module in self.model.modules():
            if isinstance(module, tuning.AdapterBlock):
                module.dropout.train()

    def _step(self, images: torch.Tensor, labels: np.ndarray[Any, Any]) -> float:
        target = torch.from_numpy(labels).to(self.device)
        loss = functional.cross_entropy(self._logits(images), target)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        found = float(loss.detach())
        if not np.isfinite(found):
            raise BackboneError(
                "the training loss is not finite any more", where="--lr", remedy="give a lower learning rate, or fp32"
            )
        return found

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bf16):
            features = self.model(self._forward.prepare(images))
        logits: torch.Tensor = self.head(features.float())
        return logits

    @torch.no_grad()
    def _look_at_held_out(self, batches: ImageBatches) -> tuple[float, float] | tuple[()]:
        rows, labels, size = self.task.held_rows, self.task.held_labels, self.options.batch_size
        if not len(rows):
            return ()
        self.model.eval()
        parts = np.split(rows, range(size, len(rows), size))
        logits = torch.cat([self._logits(images).cpu() for images in batches.of(parts, 0)])
        target = torch.from_numpy(labels)
        right = (logits.argmax(1) == target).double().mean()
        return float(functional.cross_entropy(logits, target)), 100 * float(right)

    def _keep(self, epoch: Epoch) -> None:
        """Notes a finished epoch and everything that the next one depends on."""
        history, now = [*self.state.history, epoch], tuning.tensors_of(self.model, self.trained)
        best, parts = self.state.best, self.parts()
        if not len(self.task.held_rows) or not best or epoch.merit > history[best - 1].merit:
            best, parts = len(history), now
        tensors = {f"now.{name}": tensor for name, tensor in now.items()}
        tensors |= {f"best.{name}": tensor.clone() for name, tensor in parts.items()}
        tensors |= {f"head.{name}": tensor.cpu().clone() for name, tensor in self.head.state_dict().items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{key}": value.cpu().clone() for key, value in values.items()}
        self.state = State(tensors, history, best)


def _below(tensors: tuning.Tensors, prefix: str) -> tuning.Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
