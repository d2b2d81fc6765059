"""Accuracies of streams of domains: a right class is right whichever domain it was found in, row by row."""

import numpy as np
import pytest
import torch
from reference.closed_form_plain import softmax, unit
from reference.gaussian import clean_rows, make_domain_stream

import tosca_cache as tosca
from tosca_cache.learners.protocol import run_protocol
from tosca_cache.learners.simplecil import SimpleCil
from tosca_cache.runs.experiment import evaluate_trained

COUNTS = {
    "shared": [[7, 5, 6, 4]] * 3,
    "unequal": [[7, 5, 0, 4], [3, 9, 6, 0], [0, 0, 8, 5]],  # each class in two domains
    "disjoint": [[7, 5, 0, 0], [0, 0, 6, 0], [0, 0, 0, 8]],
}


@pytest.fixture(scope="module", params=COUNTS)
def stream(request):
    return make_domain_stream(COUNTS[request.param], dim=8, noise=1.2)


def rows_of(stream, tasks):
    """(task, class, features in float64) of each test row of the first tasks."""
    for number in range(tasks):
        test = stream.test(number)
        for x, label in zip(test.features[:, 0].astype(np.float64), test.labels, strict=True):
            yield number, int(stream.class_of[label]), x


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
        nearest = [
            (j, owner[(unit(np.stack(means)) @ unit(x)).argmax()] == c) for j, c, x in rows_of(stream, after + 1)
        ]
        R.append(table(nearest, after))
    return R


def test_nearest_class_means_are_those_of_every_domain(stream):
    outcome = run_protocol(SimpleCil(), stream)
    for after, row in enumerate(plain_nearest_means(stream)):
        np.testing.assert_allclose(outcome.R[after, : after + 1], row)
    assert np.isnan(outcome.R[np.triu_indices(3, 1)]).all()


def plain_answers(trained):
    """(task, class, module, predicted class) of every test row after the last task, from the logits of the modules."""
    stream, bank = trained.stream, trained.learner.bank
    for j, c, x in rows_of(stream, len(stream)):
        row = torch.from_numpy(x[None]).float()
        logits = [bank.logits(bank.adapted(t, row))[0].double().detach().numpy() for t in range(len(bank))]
        entropy = [-(p * np.log(p + 1e-9)).sum() for p in map(softmax, logits)]
        module = int(np.argmin(entropy))
        yield j, c, module, int(stream.class_of[logits[module].argmax()])


def test_tosca_on_domains_as_counted_row_by_row(stream):
    quick = {"epochs": 3, "batch_size": 8, "mlp_ratio": 4, "se_ratio": 4}
    trained = tosca.train(stream, seed=4, device="cpu", router="sample", **quick)
    tasks, classes, modules, predicted = np.array(list(plain_answers(trained))).T
    right, known = classes == predicted, tasks == modules
    found, report = evaluate_trained(trained), tosca.evaluate(trained)
    np.testing.assert_allclose(trained.outcome.R[-1], table(list(zip(tasks, right, strict=True)), 2))
    assert found.metrics["last_accuracy"] == report["last_accuracy"] == pytest.approx(100 * right.mean())
    assert found.metrics["task_identification_accuracy"] == pytest.approx(100 * known.mean())
    assert found.metrics["accuracy_given_right_task"] == pytest.approx(100 * right[known].mean())
    assert found.conditions["per_sample"] == pytest.approx(100 * right.mean())
    nearest = np.average(plain_nearest_means(stream)[-1], weights=trained.outcome.counts)
    assert found.conditions["nearest_class_mean"] == pytest.approx(nearest)
    assert found.outputs[1].max() < 4
    assert trained.outcome.labels.tolist() == classes.tolist()
    assert trained.outcome.predictions[-1].labels.tolist() == predicted.tolist()
    for router in (None, "sample"):
        routed = tosca.route(trained, clean_rows(stream), router=router, labels="positions")
        assert [part.tolist() for part in routed] == [predicted.tolist(), modules.tolist()]
