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
            help="Runs (path, name, or last), ledgers, stores, what compare --json or route --json printed; in any mix.",
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
    found: list[dict[str, Any]] = []
    photos: dict[str, str] = {}
    places = []
    with make_console(stderr=True).status("") as status:
        for target in targets:
            from rich.text import Text

            status.update(Text(f"reading {target}"))
            facts, pictures, place = _facts(target, runs, images=not no_images)
            found.append(facts)
            photos |= pictures
            places.append(place)
    write_page(found, out or places[0], photos)


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
            self._write(refresh=3)
            self.next = monotonic() + max(2.0, 10 * (monotonic() - begun))

    def finish(self) -> None:
        """Writes the last page."""
        self._write(refresh=None)

    def _write(self, refresh: int | None) -> None:
        def write() -> None:
            """Where there is something to show."""
            if self.path is not None and (facts := self.facts()) is not None:
                write_page([facts], self.path, refresh=refresh)

        _or_say(write)


def page_of_run(run: Path) -> None:
    """The page of a run just made: what its folder says; a run of hours is not lost for it."""
    from tosca_cache.runs.report_facts import run_facts

    _or_say(lambda: write_page([run_facts(run)], run / "report.html"))


def page_of_ledger(ledger: Path) -> None:
    """The page beside a ledger of a sweep."""
    from tosca_cache.sweep.report_facts import sweep_facts

    _or_say(lambda: write_page([sweep_facts(ledger)], beside(ledger)))


def comparison_facts(found: dict[str, Any], ledger: Path, made: dict[str, Any]) -> dict[str, Any]:
    """The table of a comparison for a page. made: where it comes from (`runs.directory.origin`)."""
    from tosca_cache.runs.report_facts import command_text, store_warnings

    said = {"made": made, "command": command_text(made["command"]), "warnings": store_warnings(made)}
    return {"kind": "comparison", "name": ledger.name, **said, "found": found}


def page_of_comparison(found: dict[str, Any], ledger: Path, made: dict[str, Any]) -> None:
    """The table of a comparison as JSON, and its page, beside its ledger."""
    from tosca_cache.errors import RunError
    from tosca_cache.files import file_errors, write_json
    from tosca_cache.sweep.run import report_path

    facts = comparison_facts(found, ledger, made)
    with file_errors(ledger, RunError, option="--ledger"):
        write_json(report_path(ledger), facts)
    _or_say(lambda: write_page([facts], beside(ledger)))


def beside(path: Path) -> Path:
    """Where the page of a file lies."""
    return path.with_name(f"{path.stem}.report.html")


def _or_say(write: Any) -> None:
    import warnings

    from tosca_cache.errors import ToscaError, ToscaWarning

    try:
        write()
    except (ToscaError, OSError, ValueError, LookupError, ArithmeticError) as error:
        reason = getattr(error, "problem", None) or f"{type(error).__name__}: {error}"
        warnings.warn(f"the page could not be written: {reason}", ToscaWarning, stacklevel=2)


def _facts(target: str, runs: Path, *, images: bool) -> tuple[dict[str, Any], dict[str, str], Path]:
    """What one target says, its thumbnails, and where its page lies by default."""
    from tosca_cache.runs.directory import find_run

    path = Path(target)
    if path.is_file():
        return *_of_file(path), beside(path)
    if path.is_dir() and not (path / "metrics.json").is_file() and any(path.glob("*manifest*.json")):
        return *_of_store(path, images=images), Path(f"{path.name}.report.html")
    run = find_run(target, runs)
    return *_of_run(run, images=images), run / "report.html"


def facts_of(target: str, runs: Path) -> dict[str, Any]:
    """What one target says, without what only a page needs of its store."""
    from tosca_cache.runs.directory import find_run
    from tosca_cache.runs.report_facts import run_facts

    path = Path(target)
    return _of_file(path)[0] if path.is_file() else run_facts(find_run(target, runs))


def _of_run(run: Path, *, images: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """A run, with what its store adds where that is at hand."""
    from tosca_cache.errors import ToscaError
    from tosca_cache.extract.thumbnails import Thumbnails
    from tosca_cache.runs.report_facts import run_facts, store_of
    from tosca_cache.runs.report_photos import reference_curves, run_photos, task_map

    facts = run_facts(run)
    store = store_of(facts["provenance"])
    if store is None:
        echo(
            f"{run}: its store is not where the run found it, so the page has no reference curves and no photos",
            err=True,
        )
        return facts, {}
    thumbnails = Thumbnails.of(store) if images else None
    try:
        facts["curves"] = reference_curves(run, store)
        facts["map"] = task_map(facts["metrics"], store)
        facts["photos"] = run_photos(run, store, thumbnails, list(facts["metrics"]["seeds"]))
    except ToscaError as error:
        echo(f"{run}: {error.problem}; the page does without", err=True)
    return facts, {} if thumbnails is None else thumbnails.photos


def _of_store(path: Path, *, images: bool) -> tuple[dict[str, Any], dict[str, str]]:
    from tosca_cache.extract.thumbnails import Thumbnails
    from tosca_cache.runs.store_facts import store_facts
    from tosca_cache.store import open_store

    store = open_store(path)
    thumbnails = Thumbnails.of(store) if images else None
    return store_facts(store, thumbnails), {} if thumbnails is None else thumbnails.photos


def _of_file(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A ledger, or what a command printed as JSON."""
    from tosca_cache.errors import RunError
    from tosca_cache.files import Limit, read_limited, strict_json
    from tosca_cache.runs.report_facts import read_json
    from tosca_cache.sweep.report_facts import is_comparison, sweep_facts
    from tosca_cache.sweep.run import report_path

    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"SQLite format 3"):
        if not is_comparison(path):
            return sweep_facts(path), {}
        found: Any = read_json(report_path(path), Limit.METRICS)
        if not found:
            raise RunError(
                "the comparison has no table yet",
                where=path,
                remedy="run the same `tosca compare` again; what is finished is kept",
            )
    else:
        try:
            found = strict_json(read_limited(path, Limit.METRICS))
        except (OSError, ValueError) as error:
            raise _no_target(path) from error
    if isinstance(found, dict) and "rows" in found and "columns" in found:
        found = {"kind": "comparison", "name": path.name, "found": found}
    if (
        isinstance(found, list)
        and found
        and all(isinstance(one, dict) and "conditions" in one and "run" in one for one in found)
    ):
        made = read_json(Path(str(found[0]["run"])) / "provenance.json")  # empty if the run is not there any more
        found = {"kind": "routes", "name": path.name, "found": found, "made": made}
    if not isinstance(found, dict) or found.get("kind") not in ("comparison", "routes"):
        raise _no_target(path)
    return found, {}


def _no_target(path: Path) -> Exception:
    from tosca_cache.errors import UsageError

    return UsageError(
        "this is nothing that can be reported on",
        where=path,
        remedy="give a run, a ledger, a store, or what `compare --json` or `route --json` printed",
    )


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
