"""Stores under attack for some minutes: kills, deaths and refusals at any step, power cuts, full disks.

Each attack builds a small store (a scene of tests/store/toy_store.py: plain, with skipped rows, in parts, restarted),
harms it, lets the next writer go on, and compares what comes out with an uninterrupted one, byte by byte:

- kill: SIGKILL of a real writer at random moments, again and again, until one gets through.
- step: a real writer that dies before a random step.
- refusal: a random step fails with ENOSPC, EDQUOT, EIO or EROFS; the error must be a `StoreError`.
- power: a recorded run, killed up to twice and gone on with, is cut after a random step, with a random loss.
- full: a file system of random size (needs the right to mount a tmpfs; left out otherwise).
- cli (--cli only, takes most of the time): SIGKILL of `tosca extract --dataset digits` at a random moment.

Measures: how many of each, and what failed. Target: no failure. Writes results/soak_store.json.

    python benchmarks/soak_store.py [--minutes 3] [--seed 0] [--cli]
"""

from __future__ import annotations

import argparse
import errno
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from common import report

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "store")]

from commands import Command, Fork  # noqa: E402
from disk_waits import without_waiting  # noqa: E402
from steps import refusal, watched  # noqa: E402
from test_survival import check, gone_on_with, record, steps_of  # noqa: E402
from toy_store import FOR_GOOD, SCENES, dying, hastily, make  # noqa: E402
from trees import everything  # noqa: E402

from tosca_cache.errors import StoreError  # noqa: E402
from tosca_cache.store import list_stores, open_store  # noqa: E402

CODES = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
SHARE = {"kill": 3, "step": 3, "refusal": 2, "power": 4, "full": 1, "cli": 1}


class Soak:
    """The attacks; each takes an empty folder and returns how often it struck, or raises what it found."""

    def __init__(self, folder: Path, seed: int, *, cli: bool) -> None:
        self.random = random.Random(seed)
        self.whole, self.steps = {}, {}
        for name in SCENES:
            self.steps[name] = len(steps_of(name, folder / name))
            self.whole[name] = everything(folder / name / "s")
        self.seconds = self._seconds(folder / "timed" / "s", "parts")  # the longest
        self.digits = self._digits(folder / "digits") if cli else None

    def _seconds(self, path: Path, name: str) -> float:
        """Seconds of a run, without those in which the server of processes starts."""
        for number in range(2):
            begun = time.monotonic()
            assert Fork(hastily, partial(make, name, path.with_name(f"s{number}"))).wait() == 0
        return time.monotonic() - begun

    def _digits(self, root: Path) -> dict[str, bytes]:
        begun = time.monotonic()
        assert Command(*_extract(root)).wait() == 0
        self.digits_seconds = time.monotonic() - begun
        return everything(list_stores(root)[0].path)

    def kill(self, folder: Path) -> int:
        """Until a writer gets through."""
        name, struck = self.random.choice(list(SCENES)), 0
        while True:
            writer = Fork(hastily, partial(make, name, folder / "s"))
            time.sleep(self.random.uniform(0, 1.5 * self.seconds))
            status = writer.kill()
            self._look(folder / "s", name)
            if status == 0 or struck > 20:
                break
            struck += 1
        gone_on_with(name, folder / "s", self.whole[name], name)
        return struck

    def step(self, folder: Path) -> int:
        """A death before one step."""
        name = self.random.choice(list(SCENES))
        number = self.random.randrange(self.steps[name] - 2)
        status = Fork(dying, folder, number, partial(make, name, folder / "s")).wait()
        assert status == -signal.SIGKILL, f"{name}, step {number}: ended with {status}"
        self._look(folder / "s", name)
        gone_on_with(name, folder / "s", self.whole[name], name)
        return 1

    def refusal(self, folder: Path) -> int:
        """One step that the disk refuses."""
        name, code = self.random.choice(list(SCENES)), self.random.choice(CODES)
        number = self.random.randrange(self.steps[name])
        with suppress(StoreError), watched(folder, refusal(number, code)):
            make(name, folder / "s")
        self._look(folder / "s", name)
        gone_on_with(name, folder / "s", self.whole[name], name)
        return 1

    def power(self, folder: Path) -> int:
        """Several cuts of one recorded run."""
        name, struck = self.random.choice(list(SCENES)), 5
        ends = sorted(self.random.randrange(2 * self.steps[name]) for _ in range(self.random.randrange(3)))
        trace = record(partial(make, name), folder / "recorded", *ends)
        for _ in range(struck):
            check(name, trace, self.random, self.random.randrange(10**9), folder / "state", self.whole[name])
        return struck

    def full(self, folder: Path) -> int:
        """A disk that is full somewhere on the way, and then larger."""
        name, size = self.random.choice(list(SCENES)), self.random.randrange(8, 400)
        with _mounted(folder, f"size={size}k") as allowed:
            if not allowed:
                return 0
            with suppress(StoreError):
                make(name, folder / "s")
            self._look(folder / "s", name)
            subprocess.run(["mount", "-o", "remount,size=16m", folder], check=True)
            gone_on_with(name, folder / "s", self.whole[name], name)
        return 1

    def cli(self, folder: Path) -> int:
        """The command itself."""
        struck = 0
        while True:
            command = Command(*_extract(folder))
            time.sleep(self.random.uniform(0, 0.6 * self.digits_seconds))
            if command.kill() == 0 or struck == 3:
                break
            struck += 1
        assert Command(*_extract(folder)).wait() == 0
        (store,) = list_stores(folder)
        ours, theirs = everything(store.path), self.digits
        assert {k: v for k, v in ours.items() if k != "provenance.json"} == {
            k: v for k, v in theirs.items() if k != "provenance.json"
        }
        return struck

    def _look(self, path: Path, name: str) -> None:
        if path.exists():
            assert everything(path) == self.whole[name], f"{name}: looks finished, and is not the same"
            open_store(path)
        assert {found.state for found in list_stores(path.parent)} <= {"finished", "unfinished"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cli", action="store_true")
    options = parser.parse_args()
    without_waiting(FOR_GOOD)  # no real plug is pulled here
    struck, attacks, failures = Counter(), Counter(), []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        soak = Soak(folder / "whole", options.seed, cli=options.cli)
        begun = time.monotonic()
        for attack, place in _attacks(soak, folder, options.cli):
            if time.monotonic() - begun > 60 * options.minutes:
                break
            attacks[attack.__name__] += 1
            try:
                struck[attack.__name__] += attack(place)
            except Exception as problem:  # whatever it is, it is what is looked for
                failures.append(
                    f"{attack.__name__} {attacks[attack.__name__]}: {type(problem).__name__}: {problem}"[:500]
                )
            shutil.rmtree(place, ignore_errors=True)
    figures = {"attacks": dict(attacks), "struck": dict(struck), "failures": failures}
    lines = [f"{name:<8} {attacks[name]:5} stores, harmed {struck[name]:5} times" for name in attacks]
    report("soak_store", vars(options), figures, [*lines, f"failures: {len(failures)}", *failures])
    sys.exit(bool(failures))


def _attacks(soak: Soak, folder: Path, cli: bool) -> Iterator[tuple[Callable[[Path], int], Path]]:
    names = [name for name, share in SHARE.items() for _ in range(share) if cli or name != "cli"]
    for number in range(10**9):
        place = folder / str(number)
        place.mkdir()
        yield getattr(soak, soak.random.choice(names)), place


def _extract(root: Path) -> list[str]:
    return ["extract", "--dataset", "digits", "--views", "0", "--workers", "1", "--root", str(root)]


@contextmanager
def _mounted(folder: Path, options: str) -> Iterator[bool]:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    allowed = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield allowed
    finally:
        if allowed:
            subprocess.run(["umount", folder], check=True)


if __name__ == "__main__":
    main()
