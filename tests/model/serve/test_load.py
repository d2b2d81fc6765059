"""Many clients at once, damaged photos, requests given up or failing: no answer is lost, mixed up, or held back."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import pytest
from campaign import times
from model.serve.conftest import app_of, encoding, listening
from photos import photo

from tosca_cache.model.encoder import Encoded, Encoder
from tosca_cache.model.serve.batching import AT_ONCE, Batcher

CLIENTS, DAMAGED = 8, 10  # every tenth photo is


@pytest.mark.campaign
def test_no_request_is_lost_and_no_answer_is_mixed_up(model):
    """Answers are compared with those of each photo by itself; the nearest training photos tell any two apart."""
    photos = [photo((5 * n % 256, 11 * n % 256, 23 * n % 256), n, "JPEG", 40 + n % 50) for n in range(times(48, 200))]
    photos[::DAMAGED] = [photo[: len(photo) // 3] for photo in photos[::DAMAGED]]
    batches = []
    app = app_of(model, before=encoding(lambda some: batches.append(len(some))), waiting=16)
    with listening(app) as address, ThreadPoolExecutor(CLIENTS) as pool:

        def ask(number):
            form = [("photos", (f"photo {number}", photos[number]))]
            for _ in range(1000):
                reply = httpx2.post(f"{address}predict?nearest=2&top=3", files=form, timeout=600)
                if reply.status_code != 503:
                    return reply
            raise AssertionError("it never had time")

        replies = list(pool.map(ask, range(len(photos))))
    served = app.state.served
    taught, training = served.current
    encoded = Encoder.encode(served.encoder, photos)
    expected, near = taught.predict(encoded.features, top=3), training.to(encoded.features, 2)
    assert sorted(encoded.errors) == list(range(0, len(photos), DAMAGED))
    assert sum(batches) == len(photos)
    for number, reply in enumerate(replies):
        assert reply.status_code == 200
        (answer,) = reply.json()["answers"]
        assert answer["path"] == f"photo {number}"
        if number % DAMAGED == 0:
            assert answer["label"] is None and answer["error"]
            continue
        top = dict(zip(expected.labels[number], expected.probabilities[number], strict=True))
        assert dict(answer["top"]) == pytest.approx(top, abs=0.02)
        similar = [one.similarity for one in near[number]]
        assert [one["similarity"] for one in answer["nearest"]] == pytest.approx(similar, abs=0.01)


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


def test_what_fails_in_a_common_batch_is_tried_alone():
    def encode(photos):
        if b"bad" in photos:
            raise MemoryError
        return Encoded(np.zeros((len(photos), 1)), {})

    async def ask(*photos):
        batcher = Batcher(encode, 1000)
        return await asyncio.gather(*(batcher.encoded([one]) for one in photos), return_exceptions=True)

    one, bad, other = asyncio.run(ask(b"good", b"bad", b"fine"))
    assert len(one.features) == len(other.features) == 1 and "memory is not enough" in str(bad)
