"""A run on disk: `NAME.partial` while it is made, `NAME` once it is whole; no run ever replaces another.

config.toml             the resolved settings; `tosca train --config` takes it back
metrics.json            R and every metric: mean over seeds, spread, and each seed's own
provenance.json         code, store fingerprint, libraries, hardware, command line, where each setting came from
log.txt                 what happened when
accuracy-curve.png, accuracy-matrix.png
report.html             all of it as a page (`tosca train` writes it once the run is whole)
seed-S/learner.safetensors
                        the learner: its numbers, and what it is
seed-S/predictions.npz  after the last task, in file order: store row, true class and task, entropy and prediction of
                        every module; after every task: predicted class and module (if there are modules). Classes are the
                        store's labels, `class_order` the order in which they were learned
seed-S/losses.npz       of TOSCA: the loss before every training step, an array a task
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tosca_cache import __version__
from tosca_cache.config import TrainConfig, to_toml
from tosca_cache.errors import FingerprintMismatch, RunError
from tosca_cache.files import Limit, file_errors, read_limited, strict_json
from tosca_cache.names import inside
from tosca_cache.store import Store, open_store

if TYPE_CHECKING:
    import torch

PARTIAL = ".partial"
LATEST = ("last", "latest")
METRICS = "metrics.json"
Number = float | None  # None: not defined
Numbers = Annotated[list[Number], Field(min_length=1)]


def _square(rows: list[list[Number]]) -> list[list[Number]]:
    if not rows or any(len(row) != len(rows) for row in rows):
        raise ValueError("not square")
    return rows


Matrix = Annotated[list[list[Number]], AfterValidator(_square)]  # R: [T, T], None above the diagonal


class _Checked(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Seed(_Checked):
    R: Matrix
    tasks: list[list[str]] | None = None
    domains: list[str] | None = None


class _Metrics(_Checked):
    """What is printed of a run. Those with a default came later, or are not in every run."""

    dataset: str
    method: str
    router: str | None
    leaks: str | None = None
    diverged: dict[str, str | None] | None = None
    incremental: str | None = None
    features: str | None = None
    R: Matrix
    accuracy_curve: Numbers
    average_accuracy: Number
    last_accuracy: Number
    forgetting: Number
    task_identification_accuracy: Number
    accuracy_given_right_task: Number
    performance_drop: Number = None
    harmonic_mean: Number = None
    spread: dict[str, Number]
    routing_batch_size: int
    last_accuracy_by_condition: dict[str, Number]
    last_accuracy_by_condition_spread: dict[str, Number]
    seconds: dict[str, float]
    seeds: Annotated[dict[str, _Seed], Field(min_length=1)]


def read_metrics(run: Path) -> dict[str, Any]:
    """metrics.json of a run; raises `RunError` if it is damaged, naming what is not as it must be."""
    where = run / METRICS
    try:
        found: Any = strict_json(read_limited(where, Limit.METRICS))
        _Metrics.model_validate(found)
    except OSError as error:
        why = error.strerror or str(error)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else "it"
        why = f"{key} is missing" if first["type"] == "missing" else f"{key} is not as it must be"
    except ValueError as error:
        why = str(error)
    else:
        return dict(found)
    raise RunError(f"metrics cannot be read: {why}", where=where, remedy="train the run again")


def run_files(where: Path) -> AbstractContextManager[None]:
    """Turns a failure of the file system into a `RunError` that says what to do about it."""
    return file_errors(where, RunError, option="--runs")


class RunDirectory:
    """A run being written.

    Arguments:
        runs: the folder of all runs; made if missing.
        dataset: gives the run its name, with the time.

    Raises `RunError` if the folder cannot be written, `UsageError` if the dataset's name is no name of a folder.
    """

    def __init__(self, runs: Path, dataset: str) -> None:
        self.path = _claim(runs, inside(runs, f"{dataset}-{datetime.now():%Y%m%d-%H%M%S}").name)
        self.final = self.path.with_name(self.path.name.removesuffix(PARTIAL))
        self.log("run begins")

    def log(self, line: str) -> None:
        """Appends one line with the time to log.txt."""
        with (
            run_files(self.path),
            (self.path / "log.txt").open("a", encoding="utf-8", errors="backslashreplace") as file,
        ):
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}\n")

    def finish(self) -> Path:
        """Gives the run its final name and returns its path."""
        self.log("run ends")
        with run_files(self.final):
            self.path.rename(self.final)
        return self.final


def _claim(runs: Path, name: str) -> Path:
    """Makes the folder of a new run; a number is added if the name is taken (two runs in one second)."""
    with run_files(runs):
        runs.mkdir(parents=True, exist_ok=True)
        for number in range(1, 10_000):
            numbered = name if number == 1 else f"{name}-{number}"
            if (runs / numbered).exists():
                continue
            try:
                (runs / (numbered + PARTIAL)).mkdir()
            except FileExistsError:
                continue
            return runs / (numbered + PARTIAL)
    raise RunError("ten thousand runs in one second", where=runs, remedy="choose another --runs folder")


def find_run(run: str, runs: Path) -> Path:
    """A finished run by path, by name within `runs`, or the `last` one there; raises `RunError` if there is none."""
    if run in LATEST and (made := list_runs(runs)):
        return made[-1]
    for path in (Path(run), runs / run):
        if (path / METRICS).is_file():
            return path
    if Path(run + PARTIAL).is_dir() or (runs / (run + PARTIAL)).is_dir() or run.endswith(PARTIAL):
        raise RunError("this run was interrupted and has no results", where=run, remedy="train it again")
    known = [path.name for path in list_runs(runs)]
    raise RunError(
        f"no run {run!r}",
        where=runs,
        remedy=f"choose one of: {', '.join(known[-5:])}" if known else "make one with: tosca train",
    )


def list_runs(runs: Path) -> list[Path]:
    """Finished runs in `runs`, oldest first."""
    found = (path for path in runs.glob("*") if (path / METRICS).is_file() and not path.name.endswith(PARTIAL))
    return sorted(found, key=lambda path: (path.stat().st_mtime, path.name))


def find_finished(config: TrainConfig, store: Store, runs: Path) -> Path | None:
    """The latest run below `runs` that training with these settings on this store would only repeat; None if there is none.

    A run that diverged does not count, nor one that cannot be read.
    """
    text, wanted = to_toml(config).encode(), (__version__, store.spec.digest())
    for path in reversed(list_runs(runs)):
        made, metrics = read_json(path / "provenance.json"), read_json(path / METRICS, Limit.METRICS)
        same = (made.get("tosca_cache"), (made.get("store") or {}).get("fingerprint")) == wanted
        with suppress(OSError):
            if same and not metrics.get("diverged") and read_limited(path / "config.toml", Limit.CONFIG) == text:
                return path
    return None


def read_json(path: Path, limit: int = Limit.PROVENANCE) -> dict[str, Any]:
    """A JSON object of a run, of at most `limit` bytes; empty if it cannot be read."""
    try:
        found = strict_json(read_limited(path, limit))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def store_used(made: Mapping[str, Any], run: Path, store: Path | None = None) -> Store:
    """The store that the numbers of a run come from by its provenance, where it was then or at `store`.

    Raises `RunError` if that is not recorded, `StoreError` if it is not there, or another one.
    """
    found = made.get("store")
    path, fingerprint = (found.get("path"), found.get("fingerprint")) if isinstance(found, dict) else (None, None)
    if not isinstance(path, str) or not isinstance(fingerprint, str):
        problem = "the run does not say which store it used"
        raise RunError(problem, where=run / "provenance.json", remedy="train the run again")
    opened = open_store(store or path)
    if opened.spec.digest() != fingerprint:
        raise FingerprintMismatch(
            f"this is not the store of the run: its fingerprint is {opened.spec.digest()[:10]}, not {fingerprint[:10]}",
            where=opened.path,
            remedy="give the store of the run with --store",
        )
    return opened


def origin(store: Store, device: torch.device) -> dict[str, Any]:
    """Where numbers come from: version, command, time, store and machine, as plain JSON values."""
    from tosca_cache.devices import describe_machine

    return {
        "tosca_cache": __version__,
        "command": sys.argv,
        "begun": datetime.now().astimezone().isoformat(timespec="seconds"),
        "store": {"path": str(store.path), "fingerprint": store.spec.digest()},
        "machine": describe_machine(device),
    }
