"""`tosca run`: from nothing to a result, by the commands that do each step."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from tosca_cache.cli.extract import TestFraction, Weights
from tosca_cache.cli.options import DEFAULT_ROOT, DEFAULT_RUNS, Config, DataRoot, Root, Runs
from tosca_cache.cli.settings import SETTINGS_OF_STEPS, dataset_of, with_settings
from tosca_cache.errors import UsageError
from tosca_cache.names import inside
from tosca_cache.terminal import echo

if TYPE_CHECKING:
    from tosca_cache.config import Resolved
    from tosca_cache.extract.request import ExtractRequest
    from tosca_cache.store import Store

BASELINES = "tosca,simplecil,slda,ranpac,pool"
AXES = ("l1=1e-4,5e-4,1e-3", "lr=0.005,0.02,0.05")
LATER = "told when the images are there"
WITHOUT_FEATURES = "what it takes is told when the features are there"


@partial(with_settings, only=SETTINGS_OF_STEPS)
def run(
    adapt: Annotated[
        bool, typer.Option("--adapt", help="Adapt the backbone on the first task first; one seed, the first.")
    ] = False,
    sweep: Annotated[bool, typer.Option("--sweep", help="Choose l1 and lr on held-out train rows first.")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Put the standard baselines beside it.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print the steps and what they take, then stop.")] = False,
    weights: Weights = None,
    test_fraction: TestFraction = None,
    config: Config = None,
    data_root: DataRoot = None,
    root: Root = DEFAULT_ROOT,
    runs: Runs = DEFAULT_RUNS,
    **settings: Any,
) -> None:
    """Fetch a dataset, extract its features, train on them, and write one page: each step by its own command.

    Interrupt it at will: run again, it skips what is finished and goes on with what is not.
    """
    given = dict(locals())
    if settings["dataset"] is None:
        raise UsageError("there is no dataset", where="--dataset", remedy="name one (`tosca datasets`)")
    if sweep and settings["method"] not in (None, "tosca"):
        raise UsageError("only tosca has something to search", where="--sweep", remedy="leave --method out")
    steps = Steps(given)
    names = [name for name in ("fetch", "adapt", "extract", "sweep", "train", "compare") if given.get(name, True)]
    for number, name in enumerate(names, 1):
        step: Step = getattr(steps, name)()
        echo(f"step {number} of {len(names)}: tosca {shlex.join(step.words)}")
        echo(f"  {step.said}")
        if not (step.done or plan):
            _call(step.words)
    if not plan:
        page = inside(runs, f"{steps.resolved.config.dataset}-run.html")
        _call(("report", *steps.targets, "-o", str(page), "--runs", str(runs)))


class Step(NamedTuple):
    """One command. words: without `tosca`. said: what it takes, or why there is nothing to do."""

    words: Sequence[str]
    said: str
    done: bool = False


class Steps:
    """The steps, each worked out when the ones before it are done. targets: what the page is of."""

    def __init__(self, given: dict[str, Any]) -> None:
        from tosca_cache.config import resolve
        from tosca_cache.datasets import known, resolve_data_root
        from tosca_cache.datasets.registry import is_address, source_of

        self.given, self.settings, self.targets = given, given["settings"], list[str]()
        self.root, self.runs, self.config = given["root"], given["runs"], given["config"]
        self.dataset: str = self.settings["dataset"]
        found = source_of(self.dataset) if is_address(self.dataset) else known(self.dataset)
        self.source = None if found is None or found.archive is None else found  # None: nothing is to be fetched
        self.place = resolve_data_root(given["data_root"])
        self.named = dict(self.settings)  # with the dataset by its name
        if self.source is not None and not self.source.classes:
            self.dataset, self.named["dataset"] = str(self.place / self.source.place), self.source.name
        dataset_of(None, self.named, self.config)
        self.resolve = partial(resolve, overrides=self.named)
        self.resolved: Resolved = self.resolve(config=self.config)
        self.base = self.resolved.config.backbone  # before it is adapted

    def words(self, *command: str, only: Callable[[str], bool] = lambda key: True) -> list[str]:
        """A command of stage two with the settings that were given."""
        found = [*command, "--dataset", self.resolved.config.dataset, *_options({"config": self.config}, "config")]
        for key, value in self.settings.items():
            if value is None or key == "dataset" or not only(key):
                continue
            name = {"seeds": "seed"}.get(key, key.replace("_", "-"))
            found += [f"--{'' if value else 'no-'}{name}"] if isinstance(value, bool) else [f"--{name}", str(value)]
        found += ["--root", str(self.root)] if self.root != DEFAULT_ROOT else []
        return [*found, *(["--runs", str(self.runs)] if self.runs != DEFAULT_RUNS else [])]

    def fetch(self) -> Step:
        """The dataset, unless it is here, made by this package, or the user's own."""
        from tosca_cache.cli.fetch import size_of
        from tosca_cache.datasets import known
        from tosca_cache.datasets.fetch import present

        source, words = self.source, ["fetch", self.settings["dataset"], *_options(self.given, "data_root")]
        if source is None:
            mine = "part of this package" if known(self.dataset) else "your own images"
            return Step(words, f"nothing to fetch: {mine}", done=True)
        if present(source, self.place) is not None:
            return Step(words, f"here already: {self.place / source.place}", done=True)
        images = source.train + source.test if source.classes else "an unknown number of"
        return Step(words, f"{source.archive}, {size_of(source)}, {images} images")

    def adapt(self) -> Step:
        """An adapted backbone, which is called after all that it is made with; from then on it is the backbone."""
        from tosca_cache.cli.adapt import DEFAULT_OUT, request_of
        from tosca_cache.extract.adapted import is_adapted
        from tosca_cache.extract.fingerprint import ExtractOptions
        from tosca_cache.extract.request import estimate

        config, given = self.resolved.config, self.given
        words = ["adapt", "--dataset", self.dataset, "--seed", str(config.seeds[0])]
        words += _options(vars(config), "increment", "init_cls", "backbone", "normalize", "img_size")
        words += _options(given, "weights", "test_fraction", "data_root")
        words += [*_options(self.settings, "device"), *([] if config.shuffle else ["--no-shuffle"])]
        name = f"{config.dataset}-{hashlib.sha256(shlex.join(words).encode()).hexdigest()[:8]}"
        words, made = [*words, "--name", name], DEFAULT_OUT / name
        for settings in (self.settings, self.named):
            settings |= {"backbone": str(made), "img_size": None, "seeds": str(config.seeds[0])}
        given["weights"] = None
        self.resolved = self.resolve(config=self.config)
        if is_adapted(made):
            return Step(words, f"here already: {made}", done=True)
        request = request_of(_parsed(words))
        if (counts := self.counts(request.source)) is None:
            return Step(words, LATER)
        images, epochs = counts[0] * request.protocol.sizes_of(counts[2])[0] // counts[2], request.training.epochs
        forward = estimate(replace(request.source, options=ExtractOptions(views=0)), images, 0).seconds
        seconds = _time(3 * epochs * forward)  # backward takes twice the products of forward
        return Step(words, f"at most {epochs} epochs over about {images} train images of the first task, {seconds}")

    def extract(self) -> Step:
        """The features, unless a store has them."""
        from tosca_cache.cli.extract import request_of
        from tosca_cache.extract.request import estimate

        asked = {"root": None if self.root == DEFAULT_ROOT else self.root, "device": self.settings["device"]}
        words = ["extract", "--dataset", self.dataset]
        words += _options(vars(self.resolved.config), "backbone", "normalize", "img_size", "views")
        words += _options(self.given, "weights", "test_fraction", "data_root")
        words += _options(asked, "root", "device")
        if (store := self.store()) is not None:
            return Step(words, f"here already: {store.path}", done=True)
        request = replace(request_of(_parsed(words)), backbone=self.base)
        if (counts := self.counts(request)) is None:
            return Step(words, LATER)
        found = estimate(request, *counts[:2])
        passes = f"{found.images} images, {found.passes} passes of the backbone, {_time(found.seconds)} for these alone"
        return Step(words, f"{passes} (by a few just now); {found.bytes / 1e6:,.0f} MB of features")

    def counts(self, request: ExtractRequest) -> tuple[int, int, int] | None:
        """Train and test images and classes, of the folder or as published; None if neither is known yet."""
        from tosca_cache.datasets import known

        if (found := known(self.dataset)) is not None:
            return found.train, found.test, found.classes
        if self.source is not None and not Path(self.dataset).is_dir():
            return None
        dataset = request.load_dataset()
        return len(dataset.splits["train"]), len(dataset.splits["test"]), len(dataset.class_names)

    def store(self) -> Store | None:
        """The features that stage two works on, if they are there."""
        from tosca_cache.errors import StoreError
        from tosca_cache.runs.stores import wanted_fields
        from tosca_cache.store import find_store

        try:
            return find_store(self.root, self.resolved.config.dataset, wanted_fields(self.resolved.config))
        except StoreError:
            return None

    def sweep(self) -> Step:
        """A search, whose ledger knows what is finished."""
        from tosca_cache.cli.sweep import SETTINGS, request_of
        from tosca_cache.sweep.run import best_path, preview

        words = self.words("sweep", only=lambda key: key in SETTINGS)
        left = {k: v for k, v in self.settings.items() if v is not None and k not in (*SETTINGS, "seeds", "method")}
        for axis in (*AXES, *(f"{key}={str(value).lower()}" for key, value in left.items())):
            words += ["--set", axis]
        ledger = inside(self.runs, f"{self.resolved.config.dataset}-sweep.sqlite")
        self.targets.append(str(ledger))
        self.config = str(best_path(ledger))
        if (store := self.store()) is None:
            return Step(words, WITHOUT_FEATURES)
        found = preview(request_of(_parsed(words), self.resolved.config), store, ledger)
        takes = f"{_time(found.seconds)}, and {_time(found.report_seconds)} for the report"
        return Step(words, f"{found.settings} settings on one seed, {takes}")

    def train(self) -> Step:
        """A run, unless the same was made on the same features."""
        from tosca_cache.runs.directory import find_finished
        from tosca_cache.sweep.run import preview
        from tosca_cache.sweep.search import SweepRequest
        from tosca_cache.sweep.space import parse_set

        words = self.words("train")
        self.targets.append("last")
        if (store := self.store()) is None or (self.given["sweep"] and not Path(str(self.config)).is_file()):
            return Step(words, WITHOUT_FEATURES)
        self.resolved = self.resolve(config=self.config)
        config = self.resolved.config
        if (made := find_finished(config, store, self.runs)) is not None:
            self.targets[-1] = str(made)
            return Step(words, f"made already: {made}", done=True)
        takes = "without an estimate (only tosca's steps can be timed beforehand)"
        if config.method == "tosca":
            request = SweepRequest(config, parse_set([]), seeds=config.seeds)
            takes = _time(preview(request, store, self.runs / ".none").seconds)
        return Step(words, f"{config.method}, seeds {','.join(map(str, config.seeds))}, {takes}")

    def compare(self) -> Step:
        """A comparison, whose ledger knows what is finished."""
        from tosca_cache.compare.cells import CompareRequest
        from tosca_cache.compare.estimate import estimate
        from tosca_cache.learners.options import method_names

        config = self.resolved.config
        words = self.words("compare", only=lambda key: key not in ("seeds", "method"))
        words += ["--methods", BASELINES, "--seeds", "".join(f"{seed}," for seed in config.seeds)]
        ledger = inside(self.runs, f"{config.dataset}-compare.sqlite")
        self.targets.append(str(ledger))
        if (store := self.store()) is None:
            return Step(words, WITHOUT_FEATURES)
        found = estimate(CompareRequest(config, method_names(BASELINES), tuple(config.seeds)), store, ledger)
        if found.finished == found.cells:
            return Step(words, f"all {found.cells} cells are finished")
        rest = f"; without {', '.join(found.untimed)}, not timed" if found.untimed else ""
        cells = f"{found.cells} cells, {found.finished} of them finished"
        return Step(words, f"{cells}; {_time(found.seconds)} (by a few tasks just now){rest}")


def _options(values: Mapping[str, Any], *keys: str) -> list[str]:
    """Some values as options, those that are not None."""
    given = [(f"--{key.replace('_', '-')}", str(values[key])) for key in keys if values[key] is not None]
    return [word for pair in given for word in pair]


def _time(seconds: float) -> str:
    from tosca_cache.report.sweeps import duration

    return f"about {duration(seconds)}"


def _parsed(words: Sequence[str]) -> dict[str, Any]:
    """What the options of a command say, by their names."""
    from tosca_cache.cli.app import app

    verb: Any = getattr(typer.main.get_command(app), "commands")[words[0]]  # noqa: B009 (it is a group)
    return verb.make_context(words[0], list(words[1:])).params


def _call(words: Sequence[str]) -> None:
    """Runs a command as if it were typed; ends this one as it ends, if not well."""
    from tosca_cache.cli.app import app

    code = typer.main.get_command(app).main(args=list(words), prog_name="tosca", standalone_mode=False)
    if code:
        raise typer.Exit(int(code))
