"""Learners trained by gradient: limits of their options, laws of their parts, and plain loops beside them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tosca_cache.errors import UsageError
from tosca_cache.luca.module import adapt, normalise
from tosca_cache.luca.parameters import Luca
from tosca_cache.methods import METHODS
from tosca_cache.methods.gaussians import EXTRA_STD, Alignment, Gaussians, covariance_factor
from tosca_cache.methods.heads import LucaKind
from tosca_cache.methods.joint import GRID, JointLogistic, JointLuca, held_out
from tosca_cache.methods.l2 import L2Linear, L2Luca
from tosca_cache.methods.lae import LaeLinear, LaeLuca
from tosca_cache.methods.mos import Mos, each_its_own
from tosca_cache.methods.oracle import OracleLuca
from tosca_cache.methods.ovor import OvorLinear, OvorLuca, virtual_outliers
from tosca_cache.methods.proteus import Proteus
from tosca_cache.methods.protocol import run_protocol
from tosca_cache.methods.slca import Slca, mean_scales
from tosca_cache.methods.tosca import Tosca
from tosca_cache.tasks import Arrays, TaskStream
from tosca_cache.train.batches import epoch_batches
from tosca_cache.train.gradient import side_by_side
from tosca_cache.train.logistic import Logistic
from tosca_cache.train.settings import Settings

DIM, CLASSES, SEED = 10, 6, 7
SETTINGS = Settings(epochs=5, batch_size=8, mlp_ratio=2, se_ratio=2, weight_decay=1e-3)
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


def make_stream(increment=2, *, rows=9, seed=3, spread=0.5, uneven=False, shared=0.0):
    generator = np.random.default_rng(11)
    means = shared + 2 * generator.normal(size=(CLASSES, DIM))

    def split(each):
        labels = np.concatenate([np.full(each + (c if uneven else 0), c) for c in range(CLASSES)])
        noise = generator.normal(size=(len(labels), 3, DIM))
        return Arrays((means[labels][:, None] + spread * noise).astype(np.float32), labels)

    names = [str(c) for c in range(CLASSES)]
    return TaskStream(split(rows), split(6), class_names=names, increment=increment, seed=seed)


def learn(learner, stream):
    for task in stream:
        learner.observe(task)
    return learner


def asked(stream):
    every = [stream.test(t) for t in range(len(stream))]
    return np.concatenate([test.features[:, 0] for test in every]), np.concatenate([test.labels for test in every])


def plain_loop(name, stream):
    """One model by torch.optim and nothing else, from the same start over the same batches."""
    _, own, module_trains = PLAIN[name]
    kind, module, rows = METHODS[name].kind, None, {}
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
    learner = learn(METHODS[name](seed=SEED, settings=SETTINGS, **PLAIN[name][0]), stream)
    module, rows = plain_loop(name, stream)
    for own, other in ((learner.module, module), (learner.rows, rows)):
        assert own.keys() == other.keys()
        for key, tensor in own.items():
            torch.testing.assert_close(tensor, other[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("one", "options", "other", "others"),
    [
        ("l2-linear", {"coefficient": 0.0}, "finetune", {}),
        ("lae-linear", {"decay": 0.0}, "ovor-linear", {"weight": 0.0}),
    ],
)
def test_two_learners_without_their_own_terms_are_the_same_to_the_bit(one, options, other, others):
    stream = make_stream()
    first = learn(METHODS[one](seed=SEED, settings=SETTINGS, **options), stream)
    second = learn(METHODS[other](seed=SEED, settings=SETTINGS, **others), stream)
    for name, tensor in first.rows.items():
        assert torch.equal(tensor, second.rows[name])


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
    learners = [METHODS[name](seed=seed, settings=settings) for seed in (3, 5, 8, 9)]
    for t in range(len(streams[0])):
        METHODS[name].observe_together(learners, [stream.task(t) for stream in streams])
    for learner, seed, stream in zip(learners, (3, 5, 8, 9), streams, strict=True):
        alone, (rows, _) = learn(METHODS[name](seed=seed, settings=settings), stream), asked(stream)
        np.testing.assert_allclose(learner.scores(rows), alone.scores(rows), rtol=1e-4, atol=1e-5)


def test_fine_tuning_forgets():
    """Features with much in common, as a backbone's are: what the scores of new classes gain, those of old ones lose."""
    stream = make_stream(rows=20, shared=5.0)
    R = run_protocol(METHODS["finetune"](seed=SEED, settings=replace(SETTINGS, epochs=10)), stream).R
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


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_sampling_has_the_covariance_of_the_rows_exactly(n):
    """x = mu + F^T z + 1e-2 e: the linear map times its transpose is the covariance + 1e-4 I."""
    x = torch.randn(n, DIM, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    mean, factor = covariance_factor(x)
    expected = torch.from_numpy(np.cov(x.numpy(), rowvar=False)) if n > 1 else torch.zeros(DIM, DIM, dtype=x.dtype)
    A = torch.cat([factor.T, EXTRA_STD * torch.eye(DIM, dtype=x.dtype)], 1)
    torch.testing.assert_close(A @ A.T, expected + 1e-4 * torch.eye(DIM, dtype=x.dtype), rtol=1e-12, atol=1e-14)
    assert len(factor) == min(n - 1, DIM)
    torch.testing.assert_close(mean, x.mean(0))


def test_what_is_kept_of_a_class_follows_from_its_covariance_alone():
    """Other rows of the same mean and covariance (an orthogonal mix of the centred ones) give the same factor."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, DIM, generator=generator, dtype=torch.float64)
    ones = torch.ones(7, 1, dtype=x.dtype)
    basis = torch.linalg.qr(torch.cat([ones, torch.randn(7, 6, generator=generator, dtype=x.dtype)], 1))[0][:, 1:]
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=x.dtype))[0]
    centred = x - x.mean(0)
    mixed = x.mean(0) + basis @ turn @ basis.T @ centred
    assert (mixed - x).abs().max() > 0.1
    torch.testing.assert_close(covariance_factor(mixed)[1], covariance_factor(x)[1], rtol=1e-8, atol=1e-10)
    assert torch.cdist(covariance_factor(x)[1], centred).min() > 0.1


def test_samples_follow_their_law():
    gaussians, x = Gaussians(), torch.randn(6, DIM, generator=torch.Generator().manual_seed(2))
    gaussians.observe(torch.cat([x, x + 3]), torch.arange(2).repeat_interleave(6), range(2))
    drawn = gaussians.sample(torch.tensor([1.0, 0.5]), 40000, torch.Generator().manual_seed(0), torch.device("cpu"))
    for c, scale in enumerate((1.0, 0.5)):
        expected = np.cov(x.numpy(), rowvar=False) + 1e-4 * np.eye(DIM)
        np.testing.assert_allclose(drawn[c].mean(0), scale * gaussians.means[c], atol=0.03)
        np.testing.assert_allclose(np.cov(drawn[c].numpy(), rowvar=False), expected, atol=0.05)


def test_means_are_scaled_by_their_age():
    torch.testing.assert_close(
        mean_scales([range(2), range(2, 3), range(3, 4)]),
        torch.tensor([0.9 + 0.1 / 3, 0.9 + 0.1 / 3, 0.9 + 0.2 / 3, 1.0], dtype=torch.float64),
    )


def test_aligned_heads_answer_and_the_heads_before_go_on():
    stream = make_stream()
    rows, labels = asked(stream)
    unaligned, aligned = (
        learn(Slca(alignment_epochs=e, seed=SEED, settings=SETTINGS, per_class=64), stream) for e in (0, 5)
    )
    for name, tensor in unaligned.rows.items():
        assert torch.equal(tensor, aligned.rows[name])
        assert not torch.equal(tensor, aligned.aligned[name])
    right = [(learner.scores(rows).argmax(1) == labels).mean() for learner in (unaligned, aligned)]
    assert right[1] > right[0] + 0.05
    assert right[1] > 0.9


def test_normalised_logits_do_not_depend_on_the_size_of_the_heads():
    """Scaling all heads by the same factor changes nothing in the first loss of the alignment."""
    gaussians, settings = Gaussians(), Settings(epochs=1, batch_size=512, lr=0.0, weight_decay=0.0)
    x = torch.randn(12, DIM, generator=torch.Generator().manual_seed(3))
    gaussians.observe(x, torch.arange(4).repeat_interleave(3), range(4))
    gradients = []
    for factor in (1.0, 10.0):
        weight = factor * torch.randn(1, 4, DIM, generator=torch.Generator().manual_seed(4))
        seen = []
        weight.requires_grad_()
        weight.register_hook(seen.append)
        Alignment(settings, 32, 0.1).run(
            [weight], lambda z, w=weight: torch.bmm(z, w.transpose(1, 2)), gaussians, [range(1), range(1, 4)], seed=1
        )
        gradients.append(factor * seen[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_virtual_outliers_lie_around_the_boundary_or_around_the_origin():
    generator = torch.Generator().manual_seed(5)
    x = 0.1 * torch.randn(40, DIM, generator=generator) + 20
    x[7] += 3  # far from all others
    options = OvorLinear(boundary=1, draws=30, kept=12, seed=SEED)
    outliers = virtual_outliers(x, options, torch.Generator().manual_seed(0))
    assert outliers.shape == (12, DIM)
    assert torch.cdist(outliers, x).argmin(1).eq(7).all()
    again = OvorLinear(boundary=1, draws=30, kept=30, seed=SEED)
    every = virtual_outliers(x, again, torch.Generator().manual_seed(0))
    torch.testing.assert_close(every[:12], outliers)  # the farthest are kept
    far = torch.cdist(every, x).sort(1).values[:, 38]
    assert (far.diff() <= 1e-5).all()
    options.around_origin = True
    assert virtual_outliers(x, options, torch.Generator().manual_seed(0)).norm(dim=1).max() < 2


def test_outliers_are_surer_of_nothing_with_a_larger_weight():
    """The energy gap between virtual outliers and rows grows with the weight of the term."""
    stream, gaps = make_stream(3, rows=30, spread=0.3), []
    for weight in (0.0, 5.0):
        learner = OvorLinear(weight=weight, tau_in=-8.0, tau_out=0.0, spread=1.0, seed=SEED, settings=SETTINGS)
        task = stream.task(0)
        learner.observe(task)
        x = torch.from_numpy(task.train.features[:, 0])
        outliers = virtual_outliers(x, learner, torch.Generator().manual_seed(1))
        energy = [-learner.logits(part, learner.module, learner.rows).logsumexp(1).mean() for part in (x, outliers)]
        gaps.append(float(energy[1] - energy[0]))
    assert gaps[1] > gaps[0] + 0.1


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
    settings = replace(SETTINGS, scheduler="steplr", milestones=(2,), gamma=0.0, lr=0.5, weight_decay=0.0)
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


def test_the_gradient_that_is_reported_is_that_of_the_objective():
    x = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(30) % 3
    w = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    b = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (F.cross_entropy(x @ w + b, y) + 0.05 * w.square().sum()).backward()
    expected = max(float(w.grad.abs().max()), float(b.grad.abs().max()))
    assert Logistic(x, y, 3).gradient(w.detach(), b.detach(), 0.1) == pytest.approx(expected)


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


def test_joint_bounds_are_trained_when_they_are_asked():
    joint = learn(JointLuca(seed=SEED, settings=SETTINGS), make_stream())
    assert joint.trained is None
    joint.scores(asked(make_stream())[0])
    assert joint.trained is not None
    joint.observe(make_stream().task(0))
    assert joint.trained is None


def test_the_oracle_is_tosca_with_the_true_module_and_needs_to_be_told():
    stream = make_stream(spread=1.5)
    oracle, tosca = (m(seed=SEED, settings=SETTINGS) for m in (OracleLuca, Tosca))
    found, routed = run_protocol(oracle, stream), run_protocol(tosca, stream)
    np.testing.assert_array_equal(found.predictions[-1].modules, found.tasks)
    evidence = routed.watch.evidence()
    chosen = evidence.labels_of(torch.from_numpy(routed.tasks)).numpy()
    np.testing.assert_array_equal(found.predictions[-1].labels, chosen)
    with pytest.raises(UsageError, match="whose task is known"):
        oracle.scores(asked(stream)[0])


def test_epochs_are_reported_as_they_end():
    seen = []
    METHODS["finetune"](seed=SEED, settings=SETTINGS).observe(make_stream().task(0), on_epoch=seen.append)
    assert seen == list(range(SETTINGS.epochs))
