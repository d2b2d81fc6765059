"""Learners trained by gradient: limits of their options, and plain loops beside them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_stream import SEED, SETTINGS, asked, learn, make_stream

from tosca_cache.learners import LEARNERS
from tosca_cache.learners.l2 import L2Linear, L2Luca
from tosca_cache.learners.lae import LaeLinear, LaeLuca
from tosca_cache.learners.mos import Mos
from tosca_cache.learners.ovor import OvorLinear, OvorLuca
from tosca_cache.learners.proteus import Proteus
from tosca_cache.learners.protocol import run_protocol
from tosca_cache.learners.slca import Slca
from tosca_cache.luca.module import adapt, normalise
from tosca_cache.luca.parameters import Luca
from tosca_cache.train.batches import epoch_batches
from tosca_cache.train.gradient import side_by_side

# Learners without their own term, and what is left: whether the loss is over own classes, and when the module is trained.
PLAIN = {
    "finetune": ({}, False, lambda task, epoch: True),
    "l2-linear": ({"coefficient": 0.0}, False, lambda task, epoch: True),
    "l2-luca": ({"coefficient": 0.0}, False, lambda task, epoch: True),
    "lae-linear": ({"decay": 0.0}, True, lambda task, epoch: True),
    "lae-luca": ({"decay": 0.0}, True, lambda task, epoch: task == 0 or epoch >= 3),
    "ovor-linear": ({"weight": 0.0}, True, lambda task, epoch: True),
    "ovor-luca": ({"weight": 0.0}, True, lambda task, epoch: epoch < 4),
}


def plain_loop(name, stream):
    """One model by torch.optim and nothing else, from the same start over the same batches."""
    _, own, module_trains = PLAIN[name]
    kind, module, rows = LEARNERS[name].kind, None, {}
    for task in stream:
        n, views, d = task.train.features.shape
        new = kind.rows(d, len(task.classes), SEED, task.number)
        module = kind.module(d, SETTINGS, SEED) if module is None else module
        start = task.classes.start if own else 0
        trained = new if own or not rows else {k: torch.cat([rows[k], new[k]], 1) for k in new}
        for tensor in (*module.values(), *trained.values()):
            tensor.requires_grad_()
        optimizer = torch.optim.SGD([*module.values(), *trained.values()], 1.0, momentum=0.9, weight_decay=1e-3)
        features, labels = torch.from_numpy(task.train.features), torch.from_numpy(task.train.labels) - start
        for batch in epoch_batches(n, views - 1, epochs=5, batch_size=8, seed=SEED, task=task.number):
            optimizer.param_groups[0]["lr"] = SETTINGS.learning_rate(batch.epoch)
            optimizer.zero_grad()
            x = features[torch.from_numpy(batch.rows), torch.from_numpy(batch.views)]
            if "luca" in name:
                z = adapt(Luca(*(module[f] for f in Luca._fields)), x, SETTINGS.flow)[0]
                logits = module["sigma"] * (normalise(z) @ normalise(trained["weight"][0]).T)
                loss = SETTINGS.l1 * sum(module[f].abs().sum() for f in Luca._fields)
            else:
                logits, loss = x @ trained["weight"][0].T + trained["bias"], 0
            (F.cross_entropy(logits, labels[torch.from_numpy(batch.rows)]) + loss).backward()
            if not module_trains(task.number, batch.epoch):
                for tensor in module.values():
                    tensor.grad = None
            optimizer.step()
        for tensor in (*module.values(), *trained.values()):
            tensor.requires_grad_(False)
        rows = {k: torch.cat([rows[k], trained[k]], 1) for k in new} if own and rows else trained
    return module, rows


@pytest.mark.parametrize("name", PLAIN)
def test_without_its_own_term_a_learner_is_plain_training(name):
    stream = make_stream()
    learner = learn(LEARNERS[name](seed=SEED, settings=SETTINGS, **PLAIN[name][0]), stream)
    module, rows = plain_loop(name, stream)
    for own, other in ((learner.module, module), (learner.rows, rows)):
        assert own.keys() == other.keys()
        for key, tensor in own.items():
            torch.testing.assert_close(tensor, other[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "off", "on"),
    [
        (L2Linear, {"coefficient": 0.0}, {"coefficient": 1.0}),
        (L2Luca, {"coefficient": 0.0}, {"coefficient": 1.0}),
        (OvorLinear, {"weight": 0.0}, {"weight": 1.0}),
        (OvorLuca, {"weight": 0.0}, {"weight": 1.0}),
        (OvorLinear, {"around_origin": False}, {"around_origin": True}),
        (Mos, {"momentum": 0.0}, {"momentum": 0.1}),
        (Mos, {"orthogonality": 0.0}, {"orthogonality": 1.0}),
        (Proteus, {"orthogonality": 0.0}, {"orthogonality": 1.0}),
    ],
)
def test_an_option_makes_a_difference(kind, off, on):
    stream = make_stream()
    rows, _ = asked(stream)
    first, second = (learn(kind(seed=SEED, settings=SETTINGS, **o), stream).scores(rows) for o in (off, on))
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize(
    "name", ["finetune", "slca", "ovor-linear", "ovor-luca", "lae-luca", "l2-luca", "mos", "proteus"]
)
def test_seeds_of_unequal_tasks_learn_side_by_side_what_each_learns_alone(name):
    streams = [make_stream(uneven=True, seed=seed) for seed in (3, 5, 8, 9)]
    settings = replace(SETTINGS, epochs=2)
    parts = side_by_side([stream.task(0) for stream in streams], settings)
    assert any(len(part) > 1 and len({len(streams[m].task(0).train) for m in part}) > 1 for part in parts)
    assert len(parts) > 1
    learners = [LEARNERS[name](seed=seed, settings=settings) for seed in (3, 5, 8, 9)]
    for t in range(len(streams[0])):
        LEARNERS[name].observe_together(learners, [stream.task(t) for stream in streams])
    for learner, seed, stream in zip(learners, (3, 5, 8, 9), streams, strict=True):
        alone, (rows, _) = learn(LEARNERS[name](seed=seed, settings=settings), stream), asked(stream)
        np.testing.assert_allclose(learner.scores(rows), alone.scores(rows), rtol=1e-4, atol=1e-5)


def test_fine_tuning_forgets():
    """Features with much in common, as a backbone's are: what the scores of new classes gain, those of old ones lose."""
    stream = make_stream(rows=20, shared=5.0)
    R = run_protocol(LEARNERS["finetune"](seed=SEED, settings=replace(SETTINGS, epochs=10)), stream).R
    assert (R.diagonal() > 95).all()
    assert R[-1, :-1].max() < 5


@pytest.mark.parametrize("kind", [L2Linear, L2Luca])
def test_a_stronger_pull_keeps_a_model_nearer_to_the_previous_one(kind):
    stream, moved = make_stream(), []
    for coefficient in (0.0, 0.3, 3.0):
        learner = kind(coefficient=coefficient, seed=SEED, settings=SETTINGS)
        learner.observe(stream.task(0))
        before = {name: t.clone() for name, t in (learner.module | learner.rows).items()}
        learner.observe(stream.task(1))
        after = {**learner.module, **{name: t[:, :2] for name, t in learner.rows.items()}}
        moved.append(sum(float((after[name] - t).square().sum()) for name, t in before.items()))
    assert moved[0] > 1.2 * moved[1] > 1.2 * 1.2 * moved[2]


def test_own_class_losses_leave_the_rows_of_earlier_classes_alone():
    stream = make_stream()
    for kind in (LaeLinear, OvorLuca, Slca):
        learner = kind(seed=SEED, settings=SETTINGS)
        learner.observe(stream.task(0))
        before = {name: tensor.clone() for name, tensor in learner.rows.items()}
        learner.observe(stream.task(1))
        for name, tensor in before.items():
            assert torch.equal(learner.rows[name][:, : tensor.shape[1]], tensor)


def test_the_offline_expert_is_the_moving_average_of_the_online_one():
    """After one step of the module (the last epoch of two, one batch): offline = decay * before + (1 - decay) * after."""
    stream = make_stream()
    settings = replace(SETTINGS, epochs=2, batch_size=100)
    learner = LaeLuca(decay=0.9, held_back=0.5, seed=SEED, settings=settings)
    learner.observe(stream.task(0))
    before = {name: t.clone() for name, t in learner.module.items()}
    assert all(torch.equal(learner.offline[name], t) for name, t in before.items())
    learner.observe(stream.task(1))
    for name, t in learner.offline.items():
        torch.testing.assert_close(t, 0.9 * before[name] + 0.1 * learner.module[name], rtol=1e-5, atol=1e-7)


def test_the_answer_of_two_experts_is_the_larger_probability():
    stream = make_stream()
    learner, (rows, _) = learn(LaeLinear(seed=SEED, settings=SETTINGS), stream), asked(stream)
    x = torch.from_numpy(rows)
    each = [(x @ w["weight"][0].T + w["bias"][0]).softmax(1) for w in (learner.rows, learner.offline)]
    assert not torch.allclose(*each)
    np.testing.assert_allclose(learner.scores(rows), torch.maximum(*each), rtol=1e-5, atol=1e-6)


def test_epochs_are_reported_as_they_end():
    seen = []
    LEARNERS["finetune"](seed=SEED, settings=SETTINGS).observe(make_stream().task(0), on_epoch=seen.append)
    assert seen == list(range(SETTINGS.epochs))
