"""The peer of the sweep benchmark: TOSCA as a good user would write it, one setting at a time.

nn.Module and torch.optim on cached tensors that are in memory already, no DataLoader; the arithmetic of the reference.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tosca_cache.config import Settings
from tosca_cache.tasks import TaskStream
from tosca_cache.train.batches import epoch_batches


class Module(nn.Module):
    """LuCA, flow `tosca`."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.norm = nn.LayerNorm(dim)
        self.squeeze, self.excite = nn.Linear(dim, hidden, bias=False), nn.Linear(hidden, dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(x + self.up(F.gelu(self.down(x))))
        return h * torch.sigmoid(self.excite(F.relu(self.squeeze(h))))


class Head(nn.Module):
    """The cosine classifier; it grows by zero rows."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight, self.sigma = nn.Parameter(torch.empty(0, dim)), nn.Parameter(torch.ones(1))

    def grow(self, classes: int) -> None:
        old, dim = self.weight.data, self.weight.shape[1]
        new = torch.zeros(classes, dim, device=old.device)
        if len(old):
            new[: len(old)] = old
        else:
            new.uniform_(-(dim**-0.5), dim**-0.5)
        self.weight = nn.Parameter(new)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.sigma * F.linear(F.normalize(z, dim=-1), F.normalize(self.weight, dim=-1))


def train_and_evaluate(stream: TaskStream, settings: Settings, device: torch.device, *, evaluate: bool) -> list[float]:
    """Trains every task in turn; with `evaluate`, accuracy after each task by the least entropy of each sample."""
    head, modules, tests, labels, curve = Head(stream.dim).to(device), [], [], [], []
    for task in stream:
        features = torch.from_numpy(task.train.features).to(device).float()
        targets = torch.from_numpy(task.train.labels).to(device)
        n, views, _ = features.shape
        module = Module(stream.dim, stream.dim // settings.mlp_ratio).to(device)
        head.grow(task.classes.stop)
        optimizer = torch.optim.SGD([*module.parameters(), *head.parameters()], lr=settings.lr, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs, eta_min=1e-8)
        epoch = 0
        for step in epoch_batches(n, views - 1, epochs=settings.epochs, batch_size=48, seed=0, task=task.number):
            if step.epoch != epoch:
                scheduler.step()
                epoch = step.epoch
            rows, shown = torch.from_numpy(step.rows).to(device), torch.from_numpy(step.views).to(device)
            loss = F.cross_entropy(head(module(features[rows, shown])), targets[rows])
            loss = loss + settings.l1 * sum(p.abs().sum() for p in module.parameters())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        modules.append(module)
        with torch.no_grad():
            adapted = module(features[:, 0])
            for c in task.classes:
                head.weight.data[c] = adapted[targets == c].mean(0)
            if evaluate:
                rows_of_task = stream.test(task.number)
                tests.append(torch.from_numpy(rows_of_task.features[:, 0]).to(device).float())
                labels.append(torch.from_numpy(rows_of_task.labels).to(device))
                curve.append(_accuracy(modules, head, torch.cat(tests), torch.cat(labels)))
    return curve


def _accuracy(modules: list[nn.Module], head: Head, rows: torch.Tensor, labels: torch.Tensor) -> float:
    entropies, predictions = [], []
    for module in modules:
        logits = head(module(rows))
        p = torch.softmax(logits, -1)
        entropies.append(-(p * torch.log(p + 1e-9)).sum(-1))
        predictions.append(logits.argmax(-1))
    chosen = torch.stack(entropies).argmin(0)
    predicted = torch.stack(predictions).gather(0, chosen.unsqueeze(0))[0]
    return float((predicted == labels).float().mean())
