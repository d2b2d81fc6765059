"""Requests that are given up while they wait, or while their photos are computed, keep nobody else from an answer."""

import asyncio
import threading

import numpy as np
import pytest

from tosca_cache.model.encoder import Encoded
from tosca_cache.model.serve.batching import AT_ONCE, Batcher


@pytest.mark.parametrize("given_up", [(0,), (1,), (0, 1), (0, 2), (1, 2)])
def test_others_are_answered_whoever_is_given_up(given_up):
    """The first is being computed, and the second does not fit into a batch with any other."""
    sizes, begun, go = (1, AT_ONCE, 2, 3), threading.Event(), threading.Event()

    def encode(photos):
        begun.set()
        assert go.wait(60)
        return Encoded(np.array([[float(photo)] for photo in photos]), {})

    async def ask():
        batcher = Batcher(encode, 1000)
        asked = [[str(10 * n).encode()] * size for n, size in enumerate(sizes)]
        tasks = [asyncio.create_task(batcher.encoded(photos)) for photos in asked]
        await asyncio.to_thread(begun.wait, 60)
        for n in given_up:
            tasks[n].cancel()
        await asyncio.sleep(0)
        go.set()
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
        assert batcher.waiting == 0
        return found

    for n, found in enumerate(asyncio.run(ask())):
        if n in given_up:
            assert isinstance(found, asyncio.CancelledError)
        else:
            assert found.features.tolist() == [[10.0 * n]] * sizes[n]
