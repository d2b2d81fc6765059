"""TOSCA in plain, slow, obviously right float64 code: one module a task, torch.nn and torch.optim, no stacking, no cache.

Written from the description of the method alone; nothing here is imported from the package.
"""

import torch
import torch.nn.functional as F
from torch import nn


class PlainLuca(nn.Module):
    def __init__(self, d, h, s, flow):
        super().__init__()
        self.flow = flow
        self.norm = nn.LayerNorm(d)
        self.mlp = nn.Sequential(nn.Linear(d, h), nn.GELU(), nn.Linear(h, d))
        self.se = nn.Sequential(nn.Linear(d, s, bias=False), nn.ReLU(), nn.Linear(s, d, bias=False), nn.Sigmoid())
        self.double()

    def forward(self, x):
        if self.flow == "tosca":
            h = self.norm(x + self.mlp(x))
            return h * self.se(h)
        if self.flow == "tosca_r":
            return x * self.se(x) + self.norm(self.mlp(x))
        return self.norm(self.mlp(x)) if self.flow == "adapter" else x * self.se(x)


class PlainTosca:
    """steps: (epoch, rows, views) for every step; start: the module's state_dict."""

    def __init__(self, settings):
        self.s, self.modules, self.weight, self.sigma = settings, [], None, torch.ones(1, dtype=torch.float64)

    def logits(self, z):
        return self.sigma * F.normalize(z, dim=1) @ F.normalize(self.weight, dim=1).T

    def optimizer(self, parameters):
        s = self.s
        if s.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay)
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[s.optimizer]
        return kind(parameters, lr=s.lr, weight_decay=s.weight_decay)

    def scheduler(self, optimizer):
        s = self.s
        if s.scheduler == "cosine":
            return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=s.epochs, eta_min=s.eta_min)
        milestones = list(s.milestones) if s.scheduler == "steplr" else []
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=s.gamma)

    def learn(self, features, labels, classes, start, first_weight, steps):
        features = features.double()
        module = PlainLuca(
            features.shape[2], start["mlp.0.weight"].shape[0], start["se.0.weight"].shape[0], self.s.flow
        )
        module.load_state_dict({name: value.double() for name, value in start.items()})
        old = first_weight.double() if self.weight is None else self.weight
        new = torch.zeros(classes.stop - len(old), features.shape[2], dtype=torch.float64)
        self.weight = torch.cat([old, new]).requires_grad_()
        self.sigma = self.sigma.detach().clone().requires_grad_()
        optimizer = self.optimizer([*module.parameters(), self.weight, self.sigma])
        scheduler, epoch, losses = self.scheduler(optimizer), 0, []
        for step_epoch, rows, views in steps:
            while epoch < step_epoch:
                scheduler.step()
                epoch += 1
            loss = F.cross_entropy(self.logits(module(features[rows, views])), labels[rows])
            loss = loss + self.s.l1 * sum(p.abs().sum() for p in module.parameters())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        module.requires_grad_(False)
        self.weight, self.sigma = self.weight.detach(), self.sigma.detach()
        for c in classes:
            self.weight[c] = module(features[labels == c, 0]).mean(0)
        self.modules.append(module)
        return losses

    def route(self, x):
        """Entropy [T, n], predicted class [n] and module [n] by least entropy of each sample."""
        logits = torch.stack([self.logits(module(x.double())) for module in self.modules])
        p = logits.softmax(-1)
        entropy = -(p * (p + 1e-9).log()).sum(-1)
        modules = entropy.argmin(0)
        return entropy, logits[modules, torch.arange(len(x))].argmax(1), modules
