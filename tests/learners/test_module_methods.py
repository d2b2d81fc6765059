"""Learners with modules that build on each other, and the joint bounds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_stream import CLASSES, DIM, SEED, SETTINGS, asked, learn, make_stream

from tosca_cache.errors import UsageError
from tosca_cache.learners.heads import LucaKind
from tosca_cache.learners.joint import GRID, JointLogistic, JointLuca, Logistic, held_out
from tosca_cache.learners.mos import Mos, each_its_own
from tosca_cache.learners.oracle import OracleLuca
from tosca_cache.learners.proteus import Proteus
from tosca_cache.learners.protocol import run_protocol
from tosca_cache.learners.tosca import Tosca
from tosca_cache.luca.module import adapt, normalise
from tosca_cache.luca.parameters import Luca
from tosca_cache.train.batches import epoch_batches


def test_without_momentum_modules_are_trained_apart():
    """Two tasks by a plain loop: the second module starts as the first, and nothing pulls it back."""
    stream = make_stream(uneven=True)
    mos = learn(Mos(momentum=0.0, orthogonality=0.0, alignment_epochs=0, seed=SEED, settings=SETTINGS), stream)
    module = LucaKind().module(DIM, SETTINGS, SEED)
    for task in stream:
        n, views, _ = task.train.features.shape
        rows = LucaKind().rows(DIM, len(task.classes), SEED, task.number)["weight"]
        leaves = [*(tensor.requires_grad_() for tensor in module.values()), rows.requires_grad_()]
        optimizer = torch.optim.SGD(leaves, 1.0, momentum=0.9, weight_decay=1e-3)
        features, labels = torch.from_numpy(task.train.features), torch.from_numpy(task.train.labels)
        for batch in epoch_batches(n, views - 1, epochs=5, batch_size=8, seed=SEED, task=task.number):
            optimizer.param_groups[0]["lr"] = SETTINGS.learning_rate(batch.epoch)
            optimizer.zero_grad()
            x = features[torch.from_numpy(batch.rows), torch.from_numpy(batch.views)]
            luca = Luca(*(module[f] for f in Luca._fields))
            logits = module["sigma"] * (normalise(adapt(luca, x, SETTINGS.flow)[0]) @ normalise(rows[0]).T)
            loss = F.cross_entropy(logits, labels[torch.from_numpy(batch.rows)] - task.classes.start)
            (loss + SETTINGS.l1 * sum(t.abs().sum() for t in luca)).backward()
            optimizer.step()
        module = {name: tensor.detach() for name, tensor in module.items()}
        for own, other in zip(mos.bank.modules[task.number], luca, strict=True):
            torch.testing.assert_close(own, other.detach(), rtol=1e-5, atol=1e-6)


def test_full_momentum_makes_a_module_the_mean_of_the_earlier_ones():
    mos = learn(Mos(momentum=1.0, seed=SEED, settings=SETTINGS), make_stream())
    first, second, third = mos.bank.modules
    for a, b, c in zip(first, second, third, strict=True):
        torch.testing.assert_close(b, a)
        torch.testing.assert_close(c, (a + b) / 2)


def test_each_its_own_passes_over_rows_that_fill_up():
    vectors = torch.randn(1, 5, DIM, generator=torch.Generator().manual_seed(6))
    whole = each_its_own(vectors[:, :4], torch.tensor([[True, True]]))
    filled = each_its_own(vectors, torch.tensor([[True, True, False]]))
    unit = normalise(vectors[0, :4])
    torch.testing.assert_close(whole[0], F.cross_entropy(unit @ unit.T / 0.8, torch.arange(4)))
    torch.testing.assert_close(filled, whole)


def test_a_module_starts_as_a_combination_of_the_earlier_ones():
    """With a rate of zero after the mixing epochs, the combination is what is left."""
    settings = replace(SETTINGS, scheduler="steplr", milestones=(2,), gamma=1e-30, lr=0.5, weight_decay=0.0)
    proteus = learn(Proteus(seed=SEED, settings=settings), make_stream())
    first, second, third = proteus.bank.modules
    a = proteus.coefficients[2]
    assert len(a) == 2
    torch.testing.assert_close(a.sum(), torch.tensor(1.0))
    for one, two, mixed in zip(first, second, third, strict=True):
        torch.testing.assert_close(two, one)  # one earlier module: itself
        torch.testing.assert_close(mixed, a[0] * one + a[1] * two)


def test_coefficients_of_the_combination_are_learned():
    stream = make_stream(1, spread=0.3)
    proteus = learn(Proteus(seed=SEED, settings=replace(SETTINGS, lr=0.1)), stream)
    a = proteus.coefficients[len(stream) - 1]
    assert (a > 0).all()
    assert a.max() - a.min() > 1e-4


def test_the_orthogonality_term_falls_during_training():
    proteus = learn(Proteus(seed=SEED, settings=replace(SETTINGS, lr=0.1), orthogonality=1.0), make_stream())
    for t, overlap in proteus.overlaps.items():
        down = [module.down_weight[0] for module in proteus.bank.modules[: t + 1]]
        assert overlap[-1] < 0.7 * overlap[0]
        before = torch.stack([(down[-1] @ earlier.T).square().sum() for earlier in down[:-1]]).mean()
        torch.testing.assert_close(before, overlap[-1], rtol=0.2, atol=0.0)  # one step later than the last record


def test_logistic_regression_reaches_the_optimum_that_scikit_learn_finds():
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(60, DIM)), generator.integers(0, 4, 60)
    for c in (1e-1, 1e-3):
        found = Logistic(torch.from_numpy(x), torch.from_numpy(y), 4).solve(c)
        assert found.gradient < 1e-5
        other = LogisticRegression(C=1 / (c * len(x)), tol=1e-10, max_iter=10000).fit(x, y)
        np.testing.assert_allclose(found.weight.T, other.coef_, atol=2e-3)


def test_the_joint_bound_chooses_its_strength_on_train_rows_and_uses_all():
    stream = make_stream(rows=20, spread=2.0)
    learner, (rows, labels) = learn(JointLogistic(seed=SEED), stream), asked(stream)
    flat = learn(JointLogistic(c=GRID[-1], seed=SEED), stream)
    right = [(one.scores(rows).argmax(1) == labels).mean() for one in (learner, flat)]
    assert right[0] > max(right[1], 0.6)
    assert learner.chosen in GRID
    assert learner.chosen != GRID[-1]  # noisy rows: the flattest problem is not the best
    assert learner.solution.gradient < 1e-5
    held = held_out(learner.labels, SEED)
    assert [int(held[learner.labels == c].sum()) for c in range(CLASSES)] == [4] * CLASSES


def test_a_joint_module_is_tosca_with_all_classes_in_one_task():
    stream, whole = make_stream(), make_stream(CLASSES)
    joint, tosca = (learn(m(seed=SEED, settings=SETTINGS), s) for m, s in ((JointLuca, stream), (Tosca, whole)))
    rows, _ = asked(stream)
    np.testing.assert_array_equal(joint.scores(rows), tosca.scores(rows))


def test_the_oracle_is_tosca_with_the_true_module_and_needs_to_be_told():
    stream = make_stream(spread=1.5)
    oracle, tosca = (m(seed=SEED, settings=SETTINGS) for m in (OracleLuca, Tosca))
    found, routed = run_protocol(oracle, stream), run_protocol(tosca, stream)
    np.testing.assert_array_equal(found.predictions[-1].modules, found.tasks)
    outputs = routed.test_set.outputs()
    chosen = outputs.labels_of(torch.from_numpy(routed.tasks)).numpy()
    np.testing.assert_array_equal(found.predictions[-1].labels, chosen)
    with pytest.raises(UsageError, match="whose task is known"):
        oracle.scores(asked(stream)[0])
