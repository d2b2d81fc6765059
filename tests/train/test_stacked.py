"""Stacked equals alone, and compiled equals PyTorch: random mixtures of settings, seeds and streams on one model axis."""

import platform

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tosca_cache.config import Settings
from tosca_cache.config.schema import FLOWS, OPTIMIZERS, SCHEDULERS
from tosca_cache.luca.module import entropy_and_prediction, normalise
from tosca_cache.luca.parameters import Head, Luca, LucaShape, Parameters, initial_head, initial_luca
from tosca_cache.train.batches import epoch_batches, view_schedule
from tosca_cache.train.engines import Engine
from tosca_cache.train.native import fit, library
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


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86 processors")
@pytest.mark.parametrize("processor", [pytest.param("-march=haswell", marks=pytest.mark.long), "-march=x86-64"])
def test_narrower_vectors_give_the_same_numbers(tmp_path, monkeypatch, processor):
    """What a processor without AVX-512 would run."""
    monkeypatch.setattr(library, "FOR_THIS_PROCESSOR", (processor,))
    monkeypatch.setenv("TOSCA_KERNEL_CACHE", str(tmp_path))
    narrower = library.load_library.__wrapped__()
    monkeypatch.setattr(fit, "load_library", lambda: narrower)
    for flow in FLOWS:
        for optimizer in OPTIMIZERS:
            test_the_compiled_kernels_do_what_pytorch_does(flow, optimizer, 37, 3, 5)


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


def unit_rows(rows, dim, seed):
    return normalise(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("name", ["torch", "native"])
@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.integers(1, 150), min_size=1, max_size=4),
    dim=st.integers(1, 70),
    classes=st.integers(1, 60),
    sigma=st.sampled_from([0.0, 1.0, -4.0, 25.0, 200.0]),
)
def test_entropy_and_prediction_are_those_of_the_formula(name, rows, dim, classes, sigma):
    """In float64; the chosen class is the most likely one, up to rounding of its logit. Rows of zero are undecided."""
    parts = [unit_rows(n, dim, seed) for seed, n in enumerate(rows)] + [torch.zeros(3, dim)]
    directions = unit_rows(classes, dim, 99)
    entropy, prediction = Engine(name).entropy_and_prediction(parts, directions, torch.tensor([sigma]))
    logits = sigma * (torch.cat(parts).double() @ directions.double().T)
    exact, expected = entropy_and_prediction(logits)
    torch.testing.assert_close(entropy.double(), exact, rtol=1e-5, atol=5e-6)
    chosen = logits.gather(1, prediction.unsqueeze(1))[:, 0]
    torch.testing.assert_close(chosen, logits.gather(1, expected.unsqueeze(1))[:, 0], rtol=0, atol=1e-4)


@given(rows=st.integers(1, 30), views=st.integers(0, 5), epochs=st.integers(1, 12), size=st.integers(1, 40))
def test_each_epoch_shows_every_row_once_in_full_batches_but_the_last(rows, views, epochs, size):
    steps = list(epoch_batches(rows, views, epochs=epochs, batch_size=size, seed=3, task=1))
    for epoch in range(epochs):
        mine = [step for step in steps if step.epoch == epoch]
        assert sorted(np.concatenate([step.rows for step in mine]).tolist()) == list(range(rows))
        assert all(len(step.rows) == size for step in mine[:-1])
        assert len(mine) == -(-rows // size)
    assert [step.epoch for step in steps] == sorted(step.epoch for step in steps)


@given(rows=st.integers(1, 20), views=st.integers(1, 6), epochs=st.integers(1, 20), seed=st.integers(0, 99))
def test_views_do_not_repeat_until_used_up(rows, views, epochs, seed):
    schedule = view_schedule(rows, views, epochs, np.random.default_rng(seed))
    assert schedule.shape == (epochs, rows)
    for row in schedule.T:
        for start in range(0, epochs, views):
            part = row[start : start + views]
            assert len(set(part)) == len(part) and part.min() >= 1 and part.max() <= views


def test_views_come_in_different_orders_and_steps_depend_on_seed_and_task_only():
    def steps(seed, task):
        found = list(epoch_batches(200, 4, epochs=8, batch_size=40, seed=seed, task=task))
        return np.concatenate([s.rows for s in found]).tolist(), np.concatenate([s.views for s in found]).tolist()

    rows, views = steps(1, 0)
    order = np.argsort(np.reshape(rows, (8, 200)), 1)
    assert len(np.unique(np.take_along_axis(np.reshape(views, (8, 200)), order, 1), axis=1).T) > 100
    assert (rows, views) == steps(1, 0) != steps(2, 0)
    assert (rows, views) != steps(1, 1)
