"""`tosca report`: runs, sweeps, comparisons, routes and stores in one page."""

from __future__ import annotations

from pathlib import Path
from time import monotonic, strftime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tosca_cache.cli.options import DEFAULT_RUNS, Runs
from tosca_cache.terminal import echo, make_console

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="FILE.html", help="Where the page is written.", show_default="beside the first target"
    ),
]
Live = Annotated[
    Path | None, typer.Option("--live", metavar="FILE.html", help="Keep a page there that refreshes itself.")
]
NoReport = Annotated[bool, typer.Option("--no-report", help="Write no page.")]


def report(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TARGET...",
            help="Runs (path, name, or last), ledgers, stores, what route --json printed; in any mix.",
        ),
    ] = None,
    out: Out = None,
    no_images: Annotated[bool, typer.Option("--no-images", help="Embed no thumbnails.")] = False,
    extract: Annotated[
        Path | None, typer.Option("--extract", metavar="FILE.html", help="Print the numbers of a page as JSON instead.")
    ] = None,
    runs: Runs = DEFAULT_RUNS,
) -> None:
    """Write one HTML page that opens offline: summary, charts, classes, provenance, and the numbers as JSON."""
    from tosca_cache.errors import UsageError

    if extract is not None:
        _extract(extract)
        return
    if not targets:
        raise UsageError(
            "there is nothing to report on", where="TARGET", remedy="name a run, a ledger or a store; or: last"
        )
    photos: dict[str, str] = {}
    with make_console(stderr=True).status("reading what the page shows"):
        found = [facts_of(target, runs, photos, images=not no_images) for target in targets]
    write_page([facts for facts, _ in found], out or found[0][1], photos)


def write_page(
    found: Sequence[dict[str, Any]], out: Path, photos: dict[str, str] | None = None, *, refresh: int | None = None
) -> None:
    """Writes a page and prints its path, which is the last thing that is printed; not of one that refreshes itself.

    refresh: seconds after which the page loads itself again.
    """
    from tosca_cache import __version__
    from tosca_cache.errors import RunError
    from tosca_cache.files import file_errors, write_text
    from tosca_cache.report.pages import render

    made = {"tosca_cache": __version__, "made": strftime("%Y-%m-%d %H:%M")}
    text = render(found, photos, made=made, refresh=refresh)
    with file_errors(out, RunError, option="--out"):
        write_text(out, text)
    if refresh is None:
        echo(f"page: {out}", err=True)


def try_page(facts: Callable[[], dict[str, Any] | None], out: Path, *, refresh: int | None = None) -> None:
    """Writes a page where there is something to show; work of hours is not lost for one that cannot be written."""
    import warnings

    from tosca_cache.errors import ToscaError, ToscaWarning

    try:
        if (found := facts()) is not None:
            write_page([found], out, refresh=refresh)
    except (ToscaError, OSError, ValueError, LookupError, ArithmeticError) as error:
        reason = getattr(error, "problem", None) or f"{type(error).__name__}: {error}"
        warnings.warn(f"the page could not be written: {reason}", ToscaWarning, stacklevel=2)


class LivePage:
    """A page that is written again while work goes on, and refreshes itself; called whenever there is something new.

    Writing takes at most a tenth of the time. `finish` leaves a page that does not refresh any more.
    """

    def __init__(self, path: Path | None, facts: Callable[[], dict[str, Any] | None]) -> None:
        self.path, self.facts, self.next = path, facts, 0.0

    def __call__(self) -> None:
        """Writes the page, unless it was written just now."""
        if self.path is not None and monotonic() >= self.next:
            begun = monotonic()
            try_page(self.facts, self.path, refresh=3)
            self.next = monotonic() + max(2.0, 10 * (monotonic() - begun))

    def finish(self) -> None:
        """Writes the last page."""
        if self.path is not None:
            try_page(self.facts, self.path)


def beside(path: Path) -> Path:
    """Where the page of a file lies."""
    return path.with_name(f"{path.stem}.report.html")


def facts_of(
    target: str, runs: Path, photos: dict[str, str] | None = None, *, images: bool = False
) -> tuple[dict[str, Any], Path]:
    """What one target says, and where its page lies by default.

    Arguments:
        photos: gets the thumbnails of a page, if there are to be images; without it, no store is read.
    """
    from tosca_cache.runs.directory import find_run
    from tosca_cache.runs.report_facts import run_facts

    path = Path(target)
    if path.is_file():
        return _of_file(path), beside(path)
    is_store = path.is_dir() and not (path / "metrics.json").is_file() and any(path.glob("*manifest*.json"))
    if is_store and photos is not None:
        return _of_store(path, photos, images=images), Path(f"{path.name}.report.html")
    run = find_run(target, runs)
    facts = run_facts(run)
    if photos is not None:
        _add_what_the_store_says(facts, run, photos, images=images)
    return facts, run / "report.html"


def _of_store(path: Path, photos: dict[str, str], *, images: bool) -> dict[str, Any]:
    from tosca_cache.extract.recompute import Thumbnails
    from tosca_cache.runs.store_facts import store_facts
    from tosca_cache.store import open_store

    store = open_store(path)
    thumbnails = Thumbnails.of(store) if images else None
    facts = store_facts(store, thumbnails)
    photos.update({} if thumbnails is None else thumbnails.photos)
    return facts


def _add_what_the_store_says(facts: dict[str, Any], run: Path, photos: dict[str, str], *, images: bool) -> None:
    """Reference curves, a map and photos of a run, where its store is at hand."""
    from tosca_cache.errors import ToscaError
    from tosca_cache.extract.recompute import Thumbnails
    from tosca_cache.runs.report_facts import store_of
    from tosca_cache.runs.report_photos import reference_curves, run_photos, task_map

    store = store_of(facts["provenance"])
    if store is None:
        why = "its store is not where the run found it, so the page has no reference curves and no photos"
        echo(f"{run}: {why}", err=True)
        return
    thumbnails = Thumbnails.of(store) if images else None
    try:
        facts["curves"] = reference_curves(run, store)
        facts["map"] = task_map(facts["metrics"], store)
        facts["photos"] = run_photos(run, store, thumbnails, list(facts["metrics"]["seeds"]))
    except ToscaError as error:
        echo(f"{run}: {error.problem}; the page does without", err=True)
    photos.update({} if thumbnails is None else thumbnails.photos)


def _of_file(path: Path) -> dict[str, Any]:
    """A ledger, or what `tosca route --json` printed."""
    from tosca_cache.errors import RunError, UsageError
    from tosca_cache.files import Limit, read_limited, strict_json
    from tosca_cache.runs.directory import read_json
    from tosca_cache.sweep.report_facts import is_comparison, sweep_facts
    from tosca_cache.sweep.run import report_path

    with path.open("rb") as file:
        is_ledger = file.read(16).startswith(b"SQLite format 3")
    if is_ledger and not is_comparison(path):
        return sweep_facts(path)
    if is_ledger:
        table = read_json(report_path(path), Limit.METRICS)
        if table.get("kind") != "comparison":
            remedy = "run the same `tosca compare` again; what is finished is kept"
            raise RunError("the comparison has no table yet", where=path, remedy=remedy)
        return table
    try:
        found: Any = strict_json(read_limited(path, Limit.METRICS))
        runs = [str(one["run"]) for one in found if one["conditions"] is not None]
        made = read_json(Path(runs[0]) / "provenance.json")  # empty if the run is not there any more
    except (OSError, ValueError, LookupError, TypeError):
        remedy = "give a run, a ledger, a store, or what `tosca route --json` printed"
        raise UsageError("this is nothing that can be reported on", where=path, remedy=remedy) from None
    return {"kind": "routes", "name": path.name, "found": found, "made": made}


def _extract(path: Path) -> None:
    import json

    from tosca_cache.errors import UsageError
    from tosca_cache.files import Limit, read_limited
    from tosca_cache.report.pages import extract

    try:
        found = extract(read_limited(path, Limit.METRICS).decode())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"no numbers can be read from it: {error}", where=path, remedy="give a page that tosca report wrote"
        ) from error
    echo(json.dumps(found, indent=1, allow_nan=False))
