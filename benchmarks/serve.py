"""What `tosca serve` costs beside the backbone, how it stands many clients, and how soon a taught class is answered.

python benchmarks/serve.py MODEL.tosca PHOTOS      PHOTOS: a folder of photos, at any depth

The server is a process of its own. Single photos go in turn through the backbone alone (prepared pixels), through the
encoder (file to features) and through the server, so that whatever else the machine does costs all three; `cpu` is the
processor's time for the same, which other work on the machine disturbs least. Then 8 clients send 200 requests at once,
every tenth damaged; each answer is compared with that of the encoder and the model here.
"""

from __future__ import annotations

import argparse
import os
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

from tosca_cache.datasets.decoding import open_rgb
from tosca_cache.datasets.transforms import image_views, render
from tosca_cache.model.encoder import Encoder
from tosca_cache.model.saved import open_model
from tosca_cache.model.session import encoder_of

CLIENTS, REQUESTS, DAMAGED, WARM, SINGLE, LESSON = 8, 200, 10, 5, 60, 5


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


def seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """What one call takes: seconds on the wall, and of this process's processor."""
    begun, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun, time.process_time() - cpu


def processor(pid: int) -> float:
    """Seconds of the processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def megabytes(pid: int, field: str) -> float:
    """`VmRSS` or `VmHWM` of a process."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def single(client: httpx2.Client, pid: int, encoder: Encoder, photos: list[bytes]) -> dict[str, float]:
    """Median milliseconds of one photo at a time, and mean milliseconds of the processor."""
    transform = encoder.backbone.transform(encoder.card.normalise)
    forward, decoding = encoder.backbone.forward(transform), encoder.decoding
    times: dict[str, list[tuple[float, float]]] = {"backbone": [], "encoder": [], "server": []}
    torch.set_num_threads(1)  # as within the encoder
    for number, photo in enumerate([photos[0]] * WARM + photos):
        image = open_rgb(photo, decoding)
        view = image_views(transform, image, seed=0, split="test", path="x", count=0)[0]
        pixels = torch.from_numpy(np.array(render(transform, image, view)))[None]
        form, used = [("photos", (f"{number}", photo))], processor(pid)
        times["backbone"].append(seconds(lambda pixels=pixels: forward(pixels)))
        times["encoder"].append(seconds(lambda photo=photo: encoder.encode([photo])))
        wall, _ = seconds(lambda form=form: client.post("predict", files=form).raise_for_status())
        times["server"].append((wall, processor(pid) - used))
    figures = {}
    for name, found in times.items():
        figures[f"{name}_ms"] = 1000 * statistics.median(wall for wall, _ in found[WARM:])
        figures[f"{name}_cpu_ms"] = 1000 * statistics.fmean(cpu for _, cpu in found[WARM:])
    for kind in ("ms", "cpu_ms"):
        figures[f"server_over_backbone_{kind}"] = figures[f"server_{kind}"] / figures[f"backbone_{kind}"]
        figures[f"server_over_encoder_{kind}"] = figures[f"server_{kind}"] / figures[f"encoder_{kind}"]
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
        wrong += int(mixed)
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


def lesson(client: httpx2.Client, pid: int, photos: list[bytes]) -> dict[str, float]:
    """A new class of 5 photos, until it is answered."""
    form = [("photos", (f"{number}", photo)) for number, photo in enumerate(photos[:LESSON])]
    begun, used = time.perf_counter(), processor(pid)
    client.post("learn", files=form, data={"name": "a new class"}).raise_for_status()
    taught, cpu = time.perf_counter() - begun, processor(pid) - used
    answer = client.post("predict", files=form[:1]).raise_for_status().json()["answers"][0]
    total = time.perf_counter() - begun
    client.post("undo").raise_for_status()
    return {
        "learn_seconds": taught,
        "learn_cpu_seconds": cpu,
        "learn_and_answer_seconds": total,
        "answered": float("a new class" in str(answer)),
    }


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
                "single": single(client, pid, encoder, chosen[:SINGLE]),
                "load": load(address, pid, encoder, model, chosen),
                "lesson": lesson(client, pid, chosen),
            }
    card = encoder.card
    sizes = {"backbone": card.name, "image_size": card.image_size, "precision": card.precision}
    sizes |= {"classes": len(model.class_names), "clients": CLIENTS}
    lines = [f"{part}.{name}: {value:.3f}" for part, found in figures.items() for name, value in found.items()]
    report("serve", sizes, figures, lines)


if __name__ == "__main__":
    main()
