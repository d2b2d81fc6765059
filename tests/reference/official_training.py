"""Learners trained by gradient behind the frozen backbone: their losses and updates in plain loops, float64.

Starts, the order of rows and views, and random draws are those of the package; everything else is computed here, by
torch.autograd and torch.optim.SGD on one model at a time.

LAE: gqk/LAE, main.py, commit aa2bc8c. OVOR: arXiv 2402.04129, and jpmorganchase/ovor, learners/ood.py, commit 8623f97.
MOS: LAMDA-PILOT, models/mos.py and backbone/vit_mos.py, commit 2647455, merged once a step as in the paper.
"""

from math import cos, pi

import numpy as np
import torch
import torch.nn.functional as F
from reference.official import QUICK, Comparison, Scores, history

from tosca_cache.learners.learning import LinearKind, LucaKind

LUCA = ("norm", "down", "up", "squeeze", "excite")


def adapt(module, x):
    """LuCA, flow `tosca` (reference/tosca.md); without a module the row itself."""
    if not module:
        return x
    a = F.gelu(x @ module["down_weight"].T + module["down_bias"]) @ module["up_weight"].T + module["up_bias"]
    h = F.layer_norm(x + a, x.shape[-1:], module["norm_weight"], module["norm_bias"])
    return h * torch.sigmoid(F.relu(h @ module["squeeze_weight"].T) @ module["excite_weight"].T)


def logits(module, rows, x):
    """Logits of rows as they are stored."""
    return head(module, rows, adapt(module, x))


def head(module, rows, z):
    """sigma * cosine of adapted rows under a module, x W^T + b without one."""
    if module:
        return module["sigma"] * F.normalize(z) @ F.normalize(rows["weight"]).T
    return z @ rows["weight"].T + rows["bias"]


def cosine_rate(settings, epoch):
    return settings.eta_min + (settings.lr - settings.eta_min) * (1 + cos(pi * epoch / settings.epochs)) / 2


def train(case, number, module, rows, loss, *, module_trains=lambda epoch: True, after=lambda: None):
    """SGD with momentum 0.9 and a cosine schedule over one task; the L1 term is over a module without its scale.

    Arguments:
        loss: of a minibatch: loss(epoch, rows of the minibatch, their class indices).
        after: called after each step.
    """
    groups = [{"params": list(module.values())}, {"params": list(rows.values())}]
    optimizer = torch.optim.SGD([group for group in groups if group["params"]], lr=1.0, momentum=0.9)
    for tensor in (*module.values(), *rows.values()):
        tensor.requires_grad_()
    train = case.stream.task(number).train
    features, labels = torch.from_numpy(train.features).double(), torch.from_numpy(train.labels)
    for batch in case.batches(number):
        epoch, which = batch.epoch, torch.from_numpy(batch.rows)
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(QUICK, epoch)
        optimizer.zero_grad()
        found = loss(epoch, features[which, torch.from_numpy(batch.views)], labels[which])
        l1 = sum(tensor.abs().sum() for name, tensor in module.items() if name.startswith(LUCA))
        (found + QUICK.l1 * l1).backward()
        if not module_trains(epoch):
            for tensor in module.values():
                tensor.grad = None
        optimizer.step()
        with torch.no_grad():
            after()
    for tensor in (*module.values(), *rows.values()):
        tensor.requires_grad_(False)


def joined(old, new):
    return {name: torch.cat([old[name], tensor]) if old else tensor for name, tensor in new.items()}


def copy_of(tensors):
    return {name: tensor.clone() for name, tensor in tensors.items()}


def asked(case, number):
    return torch.from_numpy(case.asked(number + 1)).double()


def l2(kind, coefficient):
    """arXiv 2203.17269: cross-entropy over all classes seen + coefficient * the squared distance to the parameters before.

    With a coefficient of 0 on a linear head this is fine-tuning.
    """

    def scores(case):
        module, rows, found = case.module_at_start(kind), {}, []
        for number in range(len(case.classes)):
            anchors = copy_of(module | rows) if number else {}
            rows = joined(rows, case.rows_at_start(kind, number))

            def loss(_, x, y, rows=rows, anchors=anchors):
                own = module | rows
                pull = sum((own[name][: len(before)] - before).square().sum() for name, before in anchors.items())
                return F.cross_entropy(logits(module, rows, x), y) + coefficient * pull

            train(case, number, module, rows, loss)
            found.append(logits(module, rows, asked(case, number)).numpy())
        return found

    return scores


def lae(kind, decay=None):
    """Online and offline expert; decay: None is 1 - 1 / (steps of the task)."""

    def scores(case):
        module, rows, found = case.module_at_start(kind), {}, []
        offline = {}
        for number, classes in enumerate(case.classes):
            new = case.rows_at_start(kind, number)
            steps = len(list(case.batches(number)))
            keep = 1 - 1 / steps if decay is None else decay
            online = module or new
            if number and not module:
                offline_new = copy_of(new)
            average = offline if module else (offline_new if number else {})

            def follow(average=average, online=online, keep=keep):
                for name, tensor in average.items():
                    tensor.mul_(keep).add_((1 - keep) * online[name])

            def loss(_, x, y, new=new, start=classes.start):
                return F.cross_entropy(logits(module, new, x), y - start)

            held = int(0.6 * QUICK.epochs) if number else 0
            train(case, number, module, new, loss, module_trains=lambda epoch, held=held: epoch >= held, after=follow)
            rows = joined(rows, new)
            if module:
                offline = offline if number else copy_of(module)
            else:
                offline = joined(offline, offline_new if number else copy_of(new))
            x = asked(case, number)
            first = logits(module, rows, x)
            second = logits(offline, rows, x) if module else logits({}, offline, x)
            found.append(torch.maximum(first.softmax(1), second.softmax(1)).numpy())
        return found

    return scores


def paper_outliers(x, labels, classes, noise, o):
    """A class at a time: rows farthest from their K-th other row, draws around them, of which the farthest are kept."""
    found = []
    for c in classes:
        own = x[labels == c]
        distances = np.linalg.norm(own[:, None] - own, axis=2)
        k = min(o["neighbour"], max(len(own) - 1, 1))
        inner = np.sort(distances, 1)[:, min(k, len(own) - 1)]
        points = own[np.argsort(-inner, kind="stable")[: max(len(own) // 10, 1)][: o["boundary"]]]
        draws = torch.randn(len(points), o["draws"], x.shape[1], generator=noise).double().numpy()
        drawn = (points[:, None] + o["spread"] * draws).reshape(-1, x.shape[1])
        found.append(drawn[farthest(drawn, own, min(k, len(own)), o["kept"])])
    return np.concatenate(found)


def code_outliers(x, classes, noise, o):
    """All classes together: the draws are around the origin, the same for each of `boundary` points, which are not used."""
    draws = o["spread"] * torch.randn(o["draws"], x.shape[1], generator=noise).double().numpy()
    repeated = np.concatenate([draws] * min(o["boundary"], len(x)))
    rows = x / np.linalg.norm(x, axis=1, keepdims=True)
    return repeated[farthest(repeated, rows, min(o["neighbour"], len(x)), o["kept"] * len(classes))]


def farthest(drawn, rows, k, count):
    """Which draws are farthest from their k-th nearest row, the farthest first."""
    distances = np.linalg.norm(drawn[:, None] - rows, axis=2)
    return np.lexsort((np.arange(len(drawn)) % OVOR["draws"], -np.sort(distances, 1)[:, k - 1]))[:count]


OVOR = {"neighbour": 3, "boundary": 2, "draws": 40, "spread": 1.0, "kept": 6, "weight": 0.5}


def ovor(kind, around_origin=False):
    """Cross-entropy of the task's own classes; in the last fifth of the epochs, which train the head alone, also

    weight * mean of Huber(relu(s - tau_in)) of the rows and Huber(relu(tau_out - s)) of outliers, s = -logsumexp(logits).
    """

    def huber(excess):
        return F.huber_loss(F.relu(excess), torch.zeros_like(excess))

    def scores(case):
        module, rows, found = case.module_at_start(kind), {}, []
        last = QUICK.epochs - max(int(0.2 * QUICK.epochs), 1)
        for number, classes in enumerate(case.classes):
            new, state = case.rows_at_start(kind, number), {}
            picks = case.numbers("which outliers", number)

            def prepare(state, number=number, classes=classes, new=new):
                clean = torch.from_numpy(case.x[number])
                with torch.no_grad():
                    x, energy = adapt(module, clean).numpy(), -logits(module, new, clean).logsumexp(1)
                noise = case.noise("outliers", number)
                labels = case.labels[number]
                made = code_outliers(x, classes, noise, OVOR) if around_origin else None
                made = paper_outliers(x, labels, classes, noise, OVOR) if made is None else made
                state["outliers"] = torch.from_numpy(made)
                quantiles = np.quantile(energy.numpy(), (0.25, 0.95))
                state["taus"] = quantiles if module else (-15.0, -3.0)

            def loss(epoch, x, y, new=new, state=state, picks=picks, start=classes.start, prepare=prepare):
                own = logits(module, new, x)
                found = F.cross_entropy(own, y - start)
                if epoch < last:
                    return found
                if not state:
                    prepare(state)
                shown = state["outliers"][picks.integers(0, len(state["outliers"]), QUICK.batch_size)][: len(x)]
                outside = head(module, new, shown)
                inner, outer = state["taus"]
                energies = -own.logsumexp(1) - inner, outer + outside.logsumexp(1)
                return found + OVOR["weight"] * sum(huber(energy) for energy in energies)

            train(case, number, module, new, loss, module_trains=lambda epoch: epoch < last)
            rows = joined(rows, new)
            found.append(logits(module, rows, asked(case, number)).numpy())
        return found

    return scores


def mos(case):
    """Every module of MOS, as one row of numbers: trained from the one before, drawn to the mean of all earlier ones."""
    module, modules, means, found = case.module_at_start(LucaKind()), [], [], []
    for number, classes in enumerate(case.classes):
        rows = case.rows_at_start(LucaKind(), number)
        earlier = [torch.stack(each).mean(0) for each in zip(*modules, strict=True)]

        def merge(module=module, earlier=earlier):
            for name, mean in zip((name for name in module if name != "sigma"), earlier, strict=False):
                module[name].mul_(1 - 0.1).add_(0.1 * mean)

        def loss(_, x, y, module=module, rows=rows, start=classes.start, means=tuple(means)):
            z = adapt(module, x)
            M = F.normalize(torch.stack([*means, *z]))
            apart = F.cross_entropy(M @ M.T / 0.8, torch.arange(len(M)))
            return F.cross_entropy(head(module, rows, z), y - start) + 0.1 * apart

        train(case, number, module, rows, loss, after=merge)
        modules.append([tensor.clone() for name, tensor in module.items() if name != "sigma"])
        z = adapt(module, torch.from_numpy(case.x[number]))
        means += [z[torch.from_numpy(case.labels[number] == c)].mean(0) for c in classes]
        found.append(torch.cat([tensor.flatten() for tensor in modules[-1]]).numpy())
    return found


def our_modules(case):
    states = [learned.state for learned in history(case, "mos", (("alignment_epochs", 0),))]
    return [
        np.concatenate([tensor[t].flatten() for name, tensor in state.items() if name.startswith("module.")])
        for t, state in enumerate(states)
    ]


def trained(plain, name, **options):
    """Scores after plain training of the same start over the same minibatches; training was in float32."""
    return Comparison(plain, Scores(name, options), classes=True, rtol=1e-3, atol=2e-4)


COMPARED = {
    "finetune": [trained(l2(LinearKind(), 0.0), "finetune")],
    "l2-linear": [trained(l2(LinearKind(), c), "l2-linear", coefficient=c) for c in (0.1, 0.5)],
    "l2-luca": [trained(l2(LucaKind(), c), "l2-luca", coefficient=c) for c in (0.1, 0.5)],
    "lae-linear": [trained(lae(LinearKind()), "lae-linear"), trained(lae(LinearKind(), 0.9), "lae-linear", decay=0.9)],
    "lae-luca": [trained(lae(LucaKind()), "lae-luca"), trained(lae(LucaKind(), 0.9999), "lae-luca", decay=0.9999)],
    "ovor-linear": [
        trained(ovor(LinearKind(), origin), "ovor-linear", **OVOR, around_origin=origin) for origin in (False, True)
    ],
    "ovor-luca": [
        trained(ovor(LucaKind(), origin), "ovor-luca", **OVOR, around_origin=origin) for origin in (False, True)
    ],
    "mos": [Comparison(mos, our_modules, rtol=1e-3, atol=1e-4)],
}
