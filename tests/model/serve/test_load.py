"""Many clients at once, some with damaged photos: no request is lost, and nobody gets another one's answer."""

from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from campaign import times
from model.serve.conftest import encoding, listening
from photos import photo

from tosca_cache.model.encoder import Encoder

CLIENTS, DAMAGED = 8, 10  # every tenth photo is


@pytest.mark.campaign
def test_no_request_is_lost_and_no_answer_is_mixed_up(model, app_of):
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
    expected = taught.predict(encoded.features, top=3)
    near = training.to(encoded.features, 2)
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
