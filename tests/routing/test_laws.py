"""What routers compute, against plain definitions in NumPy and PyTorch's distributions."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.closed_form_plain import softmax
from scipy.special import log_softmax as scipy_log_softmax

from tosca_cache.closed_form.lda import Lda
from tosca_cache.closed_form.shared import TEMPERATURES, HeldOutCalibration, SharedClassifier, split
from tosca_cache.errors import UsageError
from tosca_cache.luca.bank import Bank
from tosca_cache.routing import ModuleOutputs, make_router
from tosca_cache.routing.mixture import fit_signature
from tosca_cache.tasks import Rows, Task

log_softmax = partial(scipy_log_softmax, axis=-1)
SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def blocks_of(sizes):
    stops = np.cumsum(sizes)
    return tuple(range(stop - size, stop) for stop, size in zip(stops, sizes, strict=True))


def outputs_of(sizes, seed, *, n=7, d=3, views=0):
    """Outputs whose logits, views and adapted features are made up: [T, n, C], [T, V, n, C], [T, n, d]."""
    generator, task_classes = np.random.default_rng(seed), blocks_of(sizes)
    T, C = len(sizes), task_classes[-1].stop
    logits, seen = 3 * generator.normal(size=(T, n, C)), 3 * generator.normal(size=(T, views, n, C))
    adapted = generator.normal(size=(T, n, d))
    asked = SimpleNamespace(
        view_count=views,
        logits=lambda t: torch.from_numpy(logits[t]),
        view_logits=lambda t, v, own: torch.from_numpy(seen[t, v][:, own.start : own.stop]),
        adapted_rows=lambda t: torch.from_numpy(adapted[t] / np.linalg.norm(adapted[t], axis=1, keepdims=True)),
    )
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    entropy, prediction = torch.from_numpy(-(p * np.log(p + 1e-9)).sum(-1)), torch.from_numpy(logits.argmax(-1))
    features = torch.from_numpy(generator.normal(size=(n, d)))
    return ModuleOutputs(features, entropy, prediction, task_classes, asked), logits, seen


def tasks_of(sizes, seed, *, rows=6, d=3):
    generator = np.random.default_rng(seed)
    for number, block in enumerate(blocks_of(sizes)):
        labels = np.repeat(np.array(block), rows)
        features = labels[:, None, None] + generator.normal(size=(len(labels), 1, d))
        yield Task(number, block, Rows(features.astype(np.float32), labels, np.arange(len(labels))))


def entropy_of(logits, block):
    """Over the own classes, or over all where there is one; divided by its maximum."""
    asked = logits[:, block.start : block.stop] if len(block) > 1 else logits
    p = softmax(asked)
    return -(p * np.log(p + 1e-9)).sum(1) / np.log(max(asked.shape[1], 2))


def margin(logits, _):
    top = np.sort(np.pad(softmax(logits), ((0, 0), (1, 0))), 1)
    return top[:, -1] - top[:, -2]


CONFIDENCE = {  # of logits [n, C] of a module for a block of classes
    "own-entropy": lambda logits, block: -entropy_of(logits, block),
    "contracon": lambda logits, block: -entropy_of(logits, block),
    "max-cosine": lambda logits, block: logits[:, block.start : block.stop].max(1),
    "margin": margin,
    "energy": lambda logits, block: np.log(np.exp(logits[:, block.start : block.stop]).mean(1)),
}


@pytest.mark.parametrize("name", CONFIDENCE)
@given(sizes=SIZES, views=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_the_module_of_most_confidence_is_chosen(name, sizes, views, seed):
    outputs, logits, seen = outputs_of(sizes, seed, views=views)
    if name == "contracon":  # views are averaged before the entropy
        logits = 0.375 * logits + 0.625 * seen.mean(1)
    each = np.stack([CONFIDENCE[name](*pair) for pair in zip(logits, outputs.task_classes, strict=True)])
    chosen = make_router(name).route(outputs).numpy()
    np.testing.assert_allclose(each[chosen, np.arange(7)], each.max(0), atol=1e-9)


def test_a_router_of_views_needs_some():
    with pytest.raises(UsageError, match="--test-views"):
        make_router("contracon").route(outputs_of([2, 1], 0)[0])


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(2, 40), d=st.integers(1, 6), clusters=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_a_signature_is_a_density_of_all_dimensions(rows, d, clusters, seed):
    """A mixture of Gaussians whose covariances are diagonal within the kept directions, and round in all others."""
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, d)))
    found = fit_signature(x, clusters)
    basis, outside = found.basis, torch.eye(d, dtype=x.dtype) - found.basis @ found.basis.T
    covariances = [basis @ torch.diag(v) @ basis.T * found.scale**2 + found.rest * outside for v in found.variances]
    means = found.mean + (found.means * found.scale) @ basis.T
    each = [
        torch.distributions.MultivariateNormal(m, 0.5 * (c + c.T)).log_prob(x)
        for m, c in zip(means, covariances, strict=True)
    ]
    wanted = torch.logsumexp(torch.stack(each) + found.weights.log().unsqueeze(1), 0)
    np.testing.assert_allclose(found.log_density(x).numpy(), wanted.numpy(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(float(found.level), float(wanted.mean()), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_signature_of_hardly_any_rows_prefers_them(rows):
    x = torch.nn.functional.normalize(torch.randn(rows, 50, generator=torch.Generator().manual_seed(rows)), dim=1)
    found = fit_signature(x, 10)
    away = torch.nn.functional.normalize(torch.randn(20, 50, generator=torch.Generator().manual_seed(9)), dim=1)
    assert torch.isfinite(found.log_density(away.double())).all()
    assert found.log_density(x.double()).min() > found.log_density(away.double()).max()


def test_classifiers_are_calibrated_on_rows_that_they_have_not_seen():
    """Written out: fitted on earlier tasks and four fifths of each class, asked about the rest, summed over tasks.

    The shrinkage is that of the earlier tasks.
    """
    sizes, calibration, lda = [2, 3, 1], HeldOutCalibration(), SharedClassifier("lda")
    lda.calibration = calibration
    correct, nll = 0.0, np.zeros(len(TEMPERATURES))
    earlier = []
    for task in tasks_of(sizes, 5, rows=10):
        fitted, held_out = split(task)
        assert sorted([*fitted, *held_out]) == list(range(len(task.train)))
        assert np.bincount(task.train.labels[held_out])[task.classes.start :].tolist() == [2] * len(task.classes)
        plain, before = Lda(), Lda()
        for one in earlier:
            before.observe(*one)
        plain.assumed = before.chosen_shrinkage() if earlier else None
        for x, labels, classes in [*earlier, (*rows_of(task, fitted), task.classes.stop)]:
            plain.observe(x, labels, classes)
        x, labels = rows_of(task, held_out)
        scores = plain.scores(x).numpy()
        correct += (scores.argmax(1) == labels.numpy()).sum()
        nll -= [log_softmax(scores / tau)[np.arange(len(labels)), labels].sum() for tau in TEMPERATURES]
        lda.fit(task)
        earlier.append((*rows_of(task, np.arange(len(task.train))), task.classes.stop))
    assert calibration.correct(3) == correct
    np.testing.assert_allclose(calibration.nll[-1], nll, rtol=1e-6, atol=1e-9)
    nearly = np.array(TEMPERATURES)[nll <= nll.min() + 0.5]
    assert calibration.temperature(3) == max(nearly)
    assert calibration.temperature(0) is None


def rows_of(task, positions):
    return torch.from_numpy(task.train.features[positions, 0]), torch.from_numpy(task.train.labels[positions])


def standard(scores):
    spread = scores.std(1, keepdims=True)
    return (scores - scores.mean(1, keepdims=True)) / np.where(spread > 0, spread, 1)


def chain_rule(found, modules, blocks, _):
    posterior = softmax(found["lda"])
    each = [
        posterior[:, b.start : b.stop].sum(1, keepdims=True) * softmax(modules[:, b.start : b.stop]) for b in blocks
    ]
    return posterior, np.concatenate(each, 1)


def fused(found, modules, *_):
    alone = sum(standard(scores) for scores in found.values())
    return alone, alone + standard(modules)


def pooled(found, modules, blocks, classifiers):
    """Logarithms of calibrated probabilities, of the classifiers that are right as often as the best within its spread."""
    T, alone = len(blocks), 0
    correct = {name: one.calibration.correct(T) for name, one in classifiers.items()}
    best = max(correct.values())
    for name, scores in found.items():
        tau = classifiers[name].calibration.temperature(T)
        if correct[name] >= best - best**0.5:
            alone = alone + log_softmax(standard(scores) if tau is None else scores / tau)
    return alone, alone + np.concatenate([log_softmax(modules[:, b.start : b.stop]) for b in blocks], 1)


COMBINED = {"soft-lda": chain_rule, "fused": fused, "pool": pooled}


@pytest.mark.parametrize("name", COMBINED)
@settings(max_examples=20, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 10**6))
def test_classifiers_and_modules_score_classes_together(name, sizes, seed):
    """From the classifiers' scores, [n, C] each, and those of every class by the module of its task, [n, C]."""
    (outputs, logits, _), router = outputs_of(sizes, seed), make_router(name)
    for task in tasks_of(sizes, seed):
        router.fit(task, Bank("tosca"))
    blocks, classifiers = outputs.task_classes, router.classifiers
    found = {key: one.scores(outputs.features, len(blocks)).numpy() for key, one in classifiers.items()}
    modules = np.concatenate([logits[t][:, b.start : b.stop] for t, b in enumerate(blocks)], 1)
    alone, wanted = COMBINED[name](found, modules, blocks, classifiers)
    np.testing.assert_allclose(router.scores(outputs).numpy(), wanted, rtol=1e-6, atol=1e-6)
    predicted = router.predict(outputs)
    for labels, scores in ((predicted.labels, wanted), (router.classifier_only(outputs), alone)):
        np.testing.assert_allclose(scores[np.arange(7), labels], scores.max(1), atol=1e-6)
    assert all(label in blocks[module] for module, label in zip(*predicted, strict=True))
