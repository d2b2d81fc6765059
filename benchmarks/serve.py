"""What `tosca serve` costs beside the backbone, how it stands many clients, and how soon a taught class is answered.

python benchmarks/serve.py MODEL.tosca PHOTOS      PHOTOS: a folder of photos, at any depth

The server is a process of its own. Single photos go in turn through the backbone alone (prepared pixels), through the
encoder (file to features) and through the server, so that whatever else the machine does costs all three. Then 8 clients
send 200 requests at once, every tenth damaged; each answer is compared with that of the encoder and the model here.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import torch
from common import report

from tosca_cache.datasets.images import open_rgb
from tosca_cache.datasets.transforms import image_views, render
from tosca_cache.model.encoder import Encoder
from tosca_cache.model.saved import open_model
from tosca_cache.model.session import encoder_of

CLIENTS, REQUESTS, DAMAGED, SINGLE, LESSON = 8, 200, 10, 60, 5


@contextmanager
def server(model: Path) -> Iterator[tuple[str, int]]:
    """Address and process of a server."""
    command = [sys.executable, "-c", "from tosca_cache.cli import main; main()", "serve", str(model), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None
            yield found[0], process.pid
        finally:
            process.terminate()


def seconds(work: Callable[[], Any]) -> float:
    """What one call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def megabytes(pid: int, field: str) -> float:
    """`VmRSS` or `VmHWM` of a process."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def single(client: httpx2.Client, encoder: Encoder, photos: list[bytes]) -> dict[str, float]:
    """Median milliseconds of one photo at a time, and the median of their ratios photo by photo."""
    transform = encoder.backbone.transform(encoder.card.normalise)
    forward, decoding = encoder.backbone.forward(transform), encoder.decoding
    times: dict[str, list[float]] = {"backbone": [], "encoder": [], "server": []}
    torch.set_num_threads(1)  # as within the encoder
    for number, photo in enumerate(photos):
        image = open_rgb(photo, decoding)
        view = image_views(transform, image, seed=0, split="test", path="x", count=0)[0]
        pixels = torch.from_numpy(np.array(render(transform, image, view)))[None]
        times["backbone"].append(seconds(lambda pixels=pixels: forward(pixels)))
        times["encoder"].append(seconds(lambda photo=photo: encoder.encode([photo])))
        form = [("photos", (f"{number}", photo))]
        times["server"].append(seconds(lambda form=form: client.post("predict", files=form).raise_for_status()))
    kept = {name: found[5:] for name, found in times.items()}  # the first ones warm up
    figures = {f"{name}_ms": 1000 * statistics.median(found) for name, found in kept.items()}
    figures["server_over_backbone"] = figures["server_ms"] / figures["backbone_ms"]
    figures["server_over_encoder"] = figures["server_ms"] / figures["encoder_ms"]
    return figures


def load(address: str, pid: int, encoder: Encoder, model: Any, photos: list[bytes]) -> dict[str, float]:
    """8 clients at once."""
    sent = [photos[n % len(photos)] if n % DAMAGED else photos[n % len(photos)][:700] for n in range(REQUESTS)]
    before, busy = megabytes(pid, "VmRSS"), 0

    def ask(number: int) -> tuple[float, Any]:
        nonlocal busy
        begun = time.perf_counter()
        while True:
            reply = httpx2.post(f"{address}predict", files=[("photos", (str(number), sent[number]))], timeout=600)
            if reply.status_code != 503:
                return time.perf_counter() - begun, reply.raise_for_status().json()["answers"][0]
            busy += 1
            time.sleep(int(reply.headers["Retry-After"]))

    begun = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        done = list(pool.map(ask, range(REQUESTS)))
    total = time.perf_counter() - begun
    encoded = encoder.encode(sent)
    expected, wrong = model.predict(encoded.features, top=1), 0
    for number, (_, answer) in enumerate(done):
        mixed = answer["path"] != str(number) or (answer["error"] is None) == (number in encoded.errors)
        if number not in encoded.errors:
            mixed |= abs(answer["probability"] - expected.probabilities[number, 0]) > 0.1
        wrong += mixed
    waited = sorted(waited for waited, _ in done)
    return {
        "requests": len(done),
        "damaged": len(encoded.errors),
        "answered_otherwise_than_predict": wrong,
        "answered_503_first": busy,
        "seconds": total,
        "requests_per_second": REQUESTS / total,
        "median_ms": 1000 * statistics.median(waited),
        "p95_ms": 1000 * waited[int(0.95 * len(waited))],
        "memory_before_mib": before,
        "memory_most_mib": megabytes(pid, "VmHWM"),
    }


def lesson(client: httpx2.Client, photos: list[bytes]) -> dict[str, float]:
    """A new class of 5 photos, until it is answered."""
    form = [("photos", (f"{number}", photo)) for number, photo in enumerate(photos[:LESSON])]
    begun = time.perf_counter()
    client.post("learn", files=form, data={"name": "a new class"}).raise_for_status()
    taught = time.perf_counter() - begun
    answer = client.post("predict", files=form[:1]).raise_for_status().json()["answers"][0]
    total = time.perf_counter() - begun
    client.post("undo").raise_for_status()
    return {"learn_seconds": taught, "learn_and_answer_seconds": total, "answered": float("a new class" in str(answer))}


def main() -> None:
    """Measures, prints and writes results/serve.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path)
    options = parser.parse_args()
    files = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = [path.read_bytes() for path in files[:: max(1, len(files) // REQUESTS)]]
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(options.model, Path(folder) / options.model.name)  # it is taught
        model = open_model(copy)
        encoder = encoder_of(model)
        with server(copy) as (address, pid), httpx2.Client(base_url=address, timeout=600) as client:
            figures = {
                "single": single(client, encoder, chosen[:SINGLE]),
                "load": load(address, pid, encoder, model, chosen),
                "lesson": lesson(client, chosen),
            }
    card = encoder.card
    sizes = {"backbone": card.name, "image_size": card.image_size, "precision": card.precision}
    sizes |= {"classes": len(model.class_names), "clients": CLIENTS}
    lines = [f"{part}.{name}: {value:.3f}" for part, found in figures.items() for name, value in found.items()]
    report("serve", sizes, figures, lines)


if __name__ == "__main__":
    main()
