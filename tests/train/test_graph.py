"""The step that a CUDA graph captures: numbered by a tensor, always of the padded size. What it computes needs no GPU."""

import torch
from test_stacked import DIM, EPOCHS, lane, train

from tosca_cache.config import Settings
from tosca_cache.luca.parameters import LucaShape
from tosca_cache.train import loop
from tosca_cache.train.engines import Engine
from tosca_cache.train.stack import Member


def replay_without_a_graph(step, parameters, optimizer, number, count):
    """As `train.graph.replayed`, but calling the step itself: the device counts, Python passes nothing."""
    position = torch.zeros(1, dtype=torch.int64)

    def replay(_number, _size):
        step(position, None)
        position.add_(1)

    return replay


def test_the_captured_step_does_what_the_plain_step_does(monkeypatch):
    lanes = [lane(1, 17, 4, 5), lane(2, 9, 4, 5)]
    settings = [
        Settings(epochs=EPOCHS, batch_size=5, optimizer=optimizer, lr=lr, weight_decay=1e-2)
        for optimizer, lr in (("adam", 1e-3), ("adamw", 1e-3), ("sgd", 0.025))
    ]
    members = [Member(setting, number) for setting in settings for number in (0, 1)]
    shape, seeds = LucaShape(DIM, 4, 3), [1, 2, 3, 4, 5, 6]
    plain, plain_flat = train(Engine("torch"), lanes, members, shape, 4, seeds=seeds)
    monkeypatch.setattr(loop, "replayed", replay_without_a_graph)
    replayed, flat = train(Engine("torch"), lanes, members, shape, 4, seeds=seeds)
    for ours, theirs in zip(replayed, plain, strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), torch.from_numpy(theirs), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(flat, plain_flat, rtol=1e-3, atol=1e-4)
