"""Stacked equals alone, and compiled equals PyTorch: random mixtures of settings, seeds and streams on one model axis."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tosca_cache.config import Settings
from tosca_cache.config.schema import FLOWS, OPTIMIZERS, SCHEDULERS
from tosca_cache.luca.parameters import Head, Luca, LucaShape, Parameters, initial_head, initial_luca
from tosca_cache.train.batches import epoch_batches
from tosca_cache.train.engines import Engine
from tosca_cache.train.stack import Lane, Member

DIM, VIEWS, EPOCHS = 10, 3, 3
SETTING = st.fixed_dictionaries(
    {
        "flow": st.sampled_from(FLOWS),
        "optimizer": st.sampled_from(OPTIMIZERS),
        "scheduler": st.sampled_from(SCHEDULERS),
        "lr": st.sampled_from([1e-3, 0.025, 0.1]),
        "l1": st.sampled_from([0.0, 5e-4, 1e-2]),
        "weight_decay": st.sampled_from([0.0, 1e-2]),
        "momentum": st.sampled_from([0.0, 0.9]),
    }
)


def lane(seed, rows, classes, batch_size, dim=DIM):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % classes
    features = torch.randn(rows, VIEWS, dim, generator=generator) + 2 * torch.eye(classes, dim)[labels].unsqueeze(1)
    batches = epoch_batches(rows, VIEWS - 1, epochs=EPOCHS, batch_size=batch_size, seed=seed, task=0)
    return Lane(features, labels, list(batches))


def train(engine, lanes, members, shape, classes, *, seeds, task=0, dtype=torch.float32):
    """Losses of every member and the trained flat parameters [M, P], from starts drawn by seed."""
    parameters = Parameters(shape, classes, models=len(members), dtype=dtype)
    lucas = [initial_luca(shape, seed, task) for seed in seeds]
    heads = [initial_head(shape.dim, classes, seed) for seed in seeds]
    parameters.set_luca(Luca(*(torch.cat(parts) for parts in zip(*lucas, strict=True))))
    parameters.set_head(Head(*(torch.cat(parts) for parts in zip(*heads, strict=True))))
    lanes = [Lane(lane.features.to(dtype), lane.labels, lane.batches) for lane in lanes]
    return engine.fit(parameters, lanes, members), parameters.flat


@pytest.mark.parametrize("name", ["torch", "native"])
@settings(max_examples=25, deadline=None)
@given(
    mixture=st.lists(st.tuples(SETTING, st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=6),
    rows=st.lists(st.integers(4, 17), min_size=3, max_size=3),
    batch_size=st.integers(3, 9),
)
def test_every_member_gets_what_it_gets_alone(name, mixture, rows, batch_size):
    engine, shape, classes = Engine(name, threads=2), LucaShape(DIM, 4, 3), 4
    lanes = [lane(number, n, classes, batch_size) for number, n in enumerate(rows)]
    mixture = sorted(mixture, key=lambda part: (part[0]["flow"], part[0]["optimizer"]))
    members = [
        Member(Settings(**s, milestones=(1, 2), epochs=EPOCHS, batch_size=batch_size), where) for s, where, _ in mixture
    ]
    seeds = [seed for _, _, seed in mixture]
    together, flat = train(engine, lanes, members, shape, classes, seeds=seeds)
    for m, (member, seed) in enumerate(zip(members, seeds, strict=True)):
        alone, alone_flat = train(engine, [lanes[member.lane]], [Member(member.settings)], shape, classes, seeds=[seed])
        if name == "native":  # models never meet: the very same numbers
            np.testing.assert_array_equal(together[m], alone[0])
            torch.testing.assert_close(flat[m], alone_flat[0], rtol=0, atol=0)
        else:
            np.testing.assert_allclose(together[m], alone[0], rtol=1e-4)
            torch.testing.assert_close(flat[m], alone_flat[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("dim", "classes", "batch_size"), [(100, 7, 17), (96, 10, 48), (37, 3, 5)])
def test_the_compiled_kernels_do_what_pytorch_does(flow, optimizer, dim, classes, batch_size):
    lr = 0.025 if optimizer == "sgd" else 1e-3
    setting = Settings(flow=flow, optimizer=optimizer, lr=lr, weight_decay=1e-3, epochs=EPOCHS, batch_size=batch_size)
    lanes, members = [lane(3, 60, classes, batch_size, dim)], [Member(setting)]
    shape = LucaShape(dim, 11, 6)
    plain, plain_flat = train(Engine("torch"), lanes, members, shape, classes, seeds=[5])
    compiled, compiled_flat = train(Engine("native"), lanes, members, shape, classes, seeds=[5])
    np.testing.assert_allclose(compiled[0], plain[0], rtol=5e-6)
    torch.testing.assert_close(compiled_flat, plain_flat, rtol=1e-3, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    setting=SETTING,
    shape=st.builds(LucaShape, st.integers(6, 70), st.integers(2, 20), st.integers(2, 20)),
    classes=st.integers(1, 19),
    rows=st.integers(2, 30),
    batch_size=st.integers(2, 33),
)
def test_compiled_kernels_take_every_size(setting, shape, classes, rows, batch_size):
    """Sizes that fill no vector and no tile. Without L1, whose sign makes rounding errors of any two programs grow."""
    classes = min(classes, rows, shape.dim)
    setting = setting | {"l1": 0.0, "lr": 1e-3}
    lanes = [lane(3, rows, classes, batch_size, shape.dim)]
    members = [Member(Settings(**setting, milestones=(1, 2), epochs=EPOCHS, batch_size=batch_size))]
    plain, plain_flat = train(Engine("torch"), lanes, members, shape, classes, seeds=[5], dtype=torch.float64)
    compiled, compiled_flat = train(Engine("native"), lanes, members, shape, classes, seeds=[5])
    np.testing.assert_allclose(compiled[0], plain[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(compiled_flat.double(), plain_flat, rtol=1e-3, atol=2e-3)
