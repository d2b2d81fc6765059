"""What a GPU computes is what the CPU computes: training, scoring, routers, learners, extraction.

Each test runs twice: on a GPU, if there is one, and on the CPU by the code that is meant for a GPU.
"""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference.gaussian import clean_rows, make_splits, make_stream

from tosca_cache.config import Settings, TrainConfig
from tosca_cache.datasets import load_dataset
from tosca_cache.errors import ToscaWarning
from tosca_cache.extract import engine as extraction
from tosca_cache.extract.backbone import load_backbone
from tosca_cache.extract.fingerprint import ExtractOptions
from tosca_cache.extract.pipeline import Extraction
from tosca_cache.learners import LEARNERS, tosca
from tosca_cache.learners.stacked_tosca import PretrainedTosca, Source, learn_stacked
from tosca_cache.routing import ROUTERS
from tosca_cache.sweep import block
from tosca_cache.sweep.block import run_block
from tosca_cache.sweep.cells import cells_of, with_point
from tosca_cache.sweep.plan import SCORED_ON_GPU
from tosca_cache.sweep.scenario import Data, Scenario
from tosca_cache.train import loop
from tosca_cache.train.engines import Engine
from tosca_cache.train.stack import Member

QUICK = Settings(epochs=8, batch_size=8, mlp_ratio=2, se_ratio=2)  # enough steps for a graph
SHAPE = {"rows": 40, "tests": 30, "classes": 9, "dim": 24, "test_views": 3, "noise": 1.0}
CLOSED = ["acil", "fecam", "fecam-common", "fsa-lda", "garm", "lda"]
CLOSED += ["nmc", "pool", "ranpac", "ranpac-raw", "simplecil", "slda"]
CLOSED += ["anacp", "ds-al", "f-oal", "fenec", "fly-cl", "gkeal", "klda", "klda-e", "layup", "loranpac", "randumb"]
SMALL = {  # random features
    **{name: {"buffer": 100} for name in ("acil", "ds-al", "f-oal", "garm")},
    **{name: {"expansion": 100} for name in ("anacp", "fly-cl", "klda", "klda-e", "loranpac", "randumb", "ranpac")},
}


def replayed_by_hand(step, parameters, optimizer, number, count):
    """As `train.graph.replayed`, but calling the step itself: the device counts, Python passes nothing."""
    position = torch.zeros(1, dtype=torch.int64)

    def replay(_number, _size):
        step(position, None)
        position.add_(1)

    return replay


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    """A GPU, or the CPU that does as a GPU does."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no GPU of CUDA here")
        return torch.device("cuda")
    monkeypatch.setitem(tosca.AT_ONCE, "cpu", (1 << 8, 1 << 7))  # small, so that there are several groups
    monkeypatch.setattr(loop, "replayed", replayed_by_hand)
    monkeypatch.setattr(extraction, "_on_cores", extraction._on_device)
    monkeypatch.setattr(block, "scored_at_once", lambda engine, device: SCORED_ON_GPU)
    return torch.device("cpu")


@pytest.fixture(scope="module")
def stream():
    return make_stream(3, **SHAPE, seed=1)


@pytest.fixture(scope="module")
def members():
    """Settings that differ in all that a stack may mix."""
    settings = [
        replace(QUICK, flow=flow, optimizer=optimizer, lr=lr, weight_decay=1e-3)
        for flow in ("tosca", "tosca_r")
        for optimizer, lr in (("sgd", 0.025), ("adam", 1e-3), ("adamw", 1e-3))
    ]
    return [Member(setting) for setting in settings]


@pytest.fixture(scope="module")
def plain(stream, members):
    """What the CPU trains, without anything of a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "replayed", lambda *_: None)
        return learn_stacked([Source(stream, 5)], members, device=torch.device("cpu"), engine=Engine())


def test_stacked_training_with_a_graph_is_the_plain_training(device, stream, members, plain):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ToscaWarning)  # that the graph could not be had
        found = learn_stacked([Source(stream, 5)], members, device=device, engine=Engine())
    for ours, theirs in zip(found, plain, strict=True):
        for mine, its in zip(ours.losses, theirs.losses, strict=True):
            np.testing.assert_allclose(mine, its, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ours.losses[0][:20], theirs.losses[0][:20], rtol=1e-5)  # before rounding adds up
        for mine, its in zip(ours.modules[-1], theirs.modules[-1], strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("router", sorted(ROUTERS))
def test_routers_and_scoring(device, stream, members, plain, router):
    def predictions(where):
        learner = PretrainedTosca(plain[0], members[0].settings, seed=5, router=router, device=where, engine=Engine())
        test_set = learner.test_set()
        for task in stream:
            learner.observe(task)
            test_set.add(stream.test(task.number).features)
            outputs, prediction = test_set.outputs(), test_set.predict()
        return outputs.entropy.cpu(), outputs.prediction.cpu(), prediction

    entropy, modules, prediction = predictions(device)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tosca.AT_ONCE, "cpu", (tosca.ROWS_AT_ONCE, 1))
        expected = predictions(torch.device("cpu"))
    torch.testing.assert_close(entropy, expected[0], rtol=1e-4, atol=1e-5)
    assert (modules == expected[1]).float().mean() > 0.995
    assert (prediction.labels == expected[2].labels).mean() > 0.98
    assert (prediction.modules == expected[2].modules).mean() > 0.98


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(device, stream, name):
    options = SMALL.get(name, {})
    rows = clean_rows(stream)

    def scores(where):
        learner = LEARNERS[name](seed=2, device=where, **options)
        for task in stream:
            learner.observe(task)
            learner.finalize()
        again = LEARNERS[name](seed=2, device=where, **options)
        again.load_state(learner.state())
        return learner.scores(rows), again.scores(rows)

    for found, expected in zip(scores(device), scores("cpu"), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
        assert (found.argmax(1) == expected.argmax(1)).mean() > 0.995


def test_cells_of_a_sweep_are_scored_side_by_side(device):
    train, test = make_splits(**SHAPE)
    config = TrainConfig(
        increment=3, epochs=8, batch_size=8, mlp_ratio=2, se_ratio=2, router="sample", device=str(device)
    )
    cells = [
        cell
        for lr in (0.01, 0.02, 0.03, 0.04, 0.05)
        for cell in cells_of(with_point(config, {"lr": lr}), (1, 2), Scenario("test"), "gaussian")
    ]
    data = Data(train, test, tuple(str(c) for c in range(9)))
    together = run_block(cells, data, Engine())
    alone = [run_block([replace(cell, config=replace(cell.config, device="cpu"))], data, Engine())[0] for cell in cells]
    for mine, its in zip(together, alone, strict=True):
        assert mine.state == its.state == "done"
        assert mine.result["last_accuracy"] == pytest.approx(its.result["last_accuracy"], abs=1.0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_extraction(device, precision, tiny_weights, tmp_path):
    """Float32 on the device is the CPU's; bf16 has the error of bf16."""
    dataset = load_dataset("digits")
    first = {
        name: replace(split, paths=split.paths[:40], labels=split.labels[:40], domains=split.domains[:40])
        for name, split in dataset.splits.items()
    }

    def features(where, precision, name):
        backbone = load_backbone("test_vit", weights=tiny_weights, img_size=32, device=where, precision=precision)
        options = ExtractOptions(views=2, batch_size=16, store_dtype="float32")
        extraction = Extraction(replace(dataset, splits=first), backbone, tmp_path / name, options)
        return extraction.run(show_progress=False).features("train")

    found = features(device, precision, "device")
    expected = features(torch.device("cpu"), "fp32", "cpu")
    error = np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert error.max() < (1e-4 if precision == "fp32" else 5e-2)
