"""Accuracies of streams of domains: a right class is right whichever domain it was found in, row by row."""

import numpy as np
import pytest
import torch
from reference.closed_form_plain import softmax, unit
from reference.gaussian import make_domain_arrays

import tosca_cache as tosca
from tosca_cache.learners.protocol import run_protocol
from tosca_cache.learners.simplecil import SimpleCil
from tosca_cache.runs.experiment import evaluate_trained
from tosca_cache.tasks import TaskStream

QUICK = {"epochs": 3, "batch_size": 8, "mlp_ratio": 4, "se_ratio": 4}
SHARED = [[7, 5, 6, 4]] * 3
UNEQUAL = [[7, 5, 0, 4], [3, 9, 6, 0], [0, 0, 8, 5]]  # each class in two domains
DISJOINT = [[7, 5, 0, 0], [0, 0, 6, 0], [0, 0, 0, 8]]


@pytest.fixture(scope="module", params=[SHARED, UNEQUAL, DISJOINT], ids=["shared", "unequal", "disjoint"])
def stream(request):
    generator = np.random.default_rng(11)
    means, shifts = generator.normal(size=(4, 8)), 1.5 * generator.normal(size=(3, 8))
    train, test = (make_domain_arrays(generator, request.param, 8, views, means, shifts, 0.8) for views in (3, 1))
    return TaskStream(train, test, class_names="abcd", incremental="domains", domain_names="xyz", seed=2)


def table(rows, after):
    """R's row after a task from (task, right) of every test row, by counting."""
    return [
        100 * sum(right for task, right in rows if task == j) / sum(task == j for task, _ in rows)
        for j in range(after + 1)
    ]


def plain_nearest_means(stream):
    """R of cosine to the mean of every class of every domain seen, in float64."""
    means, owner, R = [], [], []
    for after in range(len(stream)):
        train = stream.task(after).train
        for label in sorted(set(train.labels.tolist())):
            means.append(train.features[train.labels == label, 0].astype(np.float64).mean(0))
            owner.append(stream.class_of[label])
        rows = []
        for j in range(after + 1):
            test = stream.test(j)
            for x, label in zip(test.features[:, 0].astype(np.float64), test.labels, strict=True):
                nearest = max(range(len(means)), key=lambda m: unit(means[m]) @ unit(x))
                rows.append((j, owner[nearest] == stream.class_of[label]))
        R.append(table(rows, after))
    return R


def test_nearest_class_means_are_those_of_every_domain(stream):
    outcome = run_protocol(SimpleCil(), stream)
    expected = plain_nearest_means(stream)
    for after, row in enumerate(expected):
        np.testing.assert_allclose(outcome.R[after, : after + 1], row)
    assert np.isnan(outcome.R[np.triu_indices(3, 1)]).all()


@pytest.fixture(scope="module")
def trained(stream):
    return tosca.train(stream, seed=4, device="cpu", router="sample", **QUICK)


def plain_answers(trained):
    """(task, class, module, predicted class) of every test row after the last task, from the logits of the modules."""
    stream, bank = trained.stream, trained.learner.bank
    for j in range(len(stream)):
        test = stream.test(j)
        for x, label in zip(test.features[:, 0], test.labels, strict=True):
            best = None
            for module in range(len(bank)):
                adapted = bank.adapted(module, torch.from_numpy(x[None]))
                logits = bank.logits(adapted)[0].double().detach().numpy()
                p = softmax(logits)
                entropy = -(p * np.log(p + 1e-9)).sum()
                if best is None or entropy < best[0]:
                    best = entropy, module, int(logits.argmax())
            yield j, int(stream.class_of[label]), best[1], int(stream.class_of[best[2]])


def test_tosca_on_domains_as_counted_row_by_row(trained):
    rows = list(plain_answers(trained))
    found = evaluate_trained(trained)
    np.testing.assert_allclose(trained.outcome.R[-1], table([(j, c == p) for j, c, _, p in rows], 2))
    known = [(c, p) for j, c, module, p in rows if module == j]
    assert found.metrics["last_accuracy"] == pytest.approx(100 * np.mean([c == p for _, c, _, p in rows]))
    assert found.metrics["task_identification_accuracy"] == pytest.approx(100 * len(known) / len(rows))
    assert found.metrics["accuracy_given_right_task"] == pytest.approx(100 * np.mean([c == p for c, p in known]))
    assert found.conditions["per_sample"] == pytest.approx(found.metrics["last_accuracy"])
    assert found.conditions["nearest_class_mean"] == pytest.approx(
        np.average(plain_nearest_means(trained.stream)[-1], weights=trained.outcome.counts)
    )
    assert trained.outcome.labels.tolist() == [c for _, c, _, _ in rows]
    assert trained.outcome.predictions[-1].labels.tolist() == [p for *_, p in rows]
    assert found.outputs[1].max() < 4


def test_route_and_evaluate_report_classes(trained):
    stream = trained.stream
    clean = np.concatenate([stream.test(j).features[:, 0] for j in range(len(stream))])
    for router in (None, "sample"):
        labels, modules = tosca.route(trained, clean, router=router, labels="positions")
        assert labels.tolist() == trained.outcome.predictions[-1].labels.tolist()
        assert modules.tolist() == trained.outcome.predictions[-1].modules.tolist()
    assert {stream.class_names[c] for c in labels} <= set("abcd")
    report = tosca.evaluate(trained)
    assert report["last_accuracy"] == pytest.approx(100 * (labels == trained.outcome.labels).mean())
