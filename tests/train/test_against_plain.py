"""The product against the plain float64 code of tests/reference, on random small problems."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.gaussian import clean_rows, make_arrays
from reference.plain import PlainTosca

from tosca_cache.config import OPTIMIZERS, SCHEDULERS, Settings
from tosca_cache.learners.protocol import run_protocol
from tosca_cache.learners.tosca import Tosca
from tosca_cache.luca.module import FLOWS
from tosca_cache.luca.parameters import initial_head, initial_luca
from tosca_cache.runs.conformance import RECORDED_NAMES
from tosca_cache.tasks import TaskStream
from tosca_cache.train.batches import epoch_batches

SETTINGS = st.builds(
    Settings,
    flow=st.sampled_from(FLOWS),
    optimizer=st.sampled_from(OPTIMIZERS),
    scheduler=st.sampled_from(SCHEDULERS),
    milestones=st.just((1, 2)),
    # At least two hidden units: with one, LN cancels the scale of A(x), gradients of zero biases are rounding noise, and
    # the sign in the L1 term makes any two implementations differ.
    mlp_ratio=st.integers(1, 3),
    se_ratio=st.integers(1, 3),
    l1=st.sampled_from([0.0, 5e-4, 1e-2]),
    weight_decay=st.sampled_from([0.0, 1e-2]),
    lr=st.sampled_from([1e-3, 0.025]),
    epochs=st.integers(1, 4),
    batch_size=st.integers(2, 12),
)


def plain_run(stream, setting, seed):
    """The plain code over the same stream, from the same start over the same steps."""
    plain, losses = PlainTosca(setting), []
    shape = Tosca(setting).shape(stream.dim)
    for task in stream:
        features, labels = torch.from_numpy(task.train.features), torch.from_numpy(task.train.labels)
        luca = initial_luca(shape, seed, task.number)
        start = {name: value[0] for name, value in zip(RECORDED_NAMES.values(), luca, strict=True)}
        head = initial_head(stream.dim, task.classes.stop, seed).weight[0]
        n, views = features.shape[:2]
        steps = epoch_batches(
            n, views - 1, epochs=setting.epochs, batch_size=setting.batch_size, seed=seed, task=task.number
        )
        losses.append(plain.learn(features, labels, task.classes, start, head, steps))
    return plain, losses


@settings(max_examples=40, deadline=None)
@given(
    setting=SETTINGS,
    classes=st.integers(2, 7),
    dim=st.integers(6, 14),
    views=st.integers(1, 4),
    seed=st.integers(0, 10**6),
    data=st.data(),
)
def test_training_and_routing_equal_the_plain_code(setting, classes, dim, views, seed, data):
    increment, init = data.draw(st.integers(1, classes)), data.draw(st.one_of(st.none(), st.integers(1, classes)))
    generator = np.random.default_rng(seed)
    means = generator.normal(size=(classes, dim))
    train = make_arrays(generator, generator.integers(1, 9, classes), dim, views, means)
    test = make_arrays(generator, generator.integers(1, 5, classes), dim, 1, means)
    stream = TaskStream(
        train, test, class_names=list("abcdefg"[:classes]), increment=increment, init_cls=init, seed=seed
    )
    plain, losses = plain_run(stream, setting, seed)

    tosca = Tosca(setting, seed=seed, dtype=torch.float64)
    outcome = run_protocol(tosca, stream)

    for ours, theirs in zip(tosca.losses, losses, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    for module, other in zip(tosca.bank.modules, plain.modules, strict=True):
        for name, value in zip(RECORDED_NAMES.values(), module, strict=True):
            torch.testing.assert_close(value[0], other.state_dict()[name], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(tosca.bank.head.weight[0], plain.weight, rtol=1e-5, atol=1e-7)
    entropy, labels, modules = plain.route(torch.from_numpy(clean_rows(stream)))
    outputs = outcome.test_set.outputs()
    torch.testing.assert_close(outputs.entropy, entropy, rtol=1e-6, atol=1e-8)
    gap = entropy.sort(0).values
    clear = torch.ones_like(labels, dtype=torch.bool) if len(gap) == 1 else (gap[1] - gap[0]) > 1e-9
    last = outcome.predictions[-1]
    assert (torch.from_numpy(last.modules) == modules)[clear].all()
    assert (torch.from_numpy(last.labels) == labels)[clear].all()
