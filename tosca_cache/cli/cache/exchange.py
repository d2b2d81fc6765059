"""`tosca cache export` and `import`: a store as one HDF5 file and back, and stores of features from elsewhere."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tosca_cache.cli.cache.common import StoreArgument, locate, readable_size
from tosca_cache.cli.options import DEFAULT_ROOT, Root
from tosca_cache.terminal import echo, make_console

if TYPE_CHECKING:
    from tosca_cache.store import Store
    from tosca_cache.store.exchange import Division, Imported, ImportRequest, Roles

LARGE = 20_000  # rows from which progress is worth a look
SHOWN = 8  # unused arrays that are printed


def _array(help: str) -> Any:
    """An option that names an array."""
    return typer.Option(help=help, metavar="ARRAY", show_default="guessed by its name", rich_help_panel=None)


Features = Annotated[str | None, _array("Features [n, d], or [n, views, d] with the clean view first; or TRAIN,TEST.")]
Labels = Annotated[str | None, _array("Labels [n], whole numbers or texts; or TRAIN,TEST.")]
Views = Annotated[str | None, _array("Augmented views [n, V, d] apart from --features; or TRAIN,TEST; or none.")]
Split = Annotated[str | None, _array("Which rows are for testing: is_test, or train/test as texts; or none.")]
Domains = Annotated[str | None, _array("Domain of each row, numbers or texts; or TRAIN,TEST; or none.")]
Paths = Annotated[str | None, _array("Identity of each row, such as the path of its image; or TRAIN,TEST; or none.")]
ClassNames = Annotated[str | None, _array("Texts that numbers of labels refer to; or none.")]
DomainNames = Annotated[str | None, _array("Texts that numbers of domains refer to; or none.")]
TestFile = Annotated[
    Path | None, typer.Option("--test", metavar="FILE", help="The test rows, if they are in a file of their own.")
]
TestFraction = Annotated[float | None, typer.Option(help="Share of each class for the test split, if there is none.")]
SplitValues = Annotated[
    str | None, typer.Option(metavar="TRAIN,TEST", help="The values of --split that mean train and test.")
]
Backbone = Annotated[str, typer.Option(help="What made the features, as `tosca train --backbone` asks for it.")]
StoreDtype = Annotated[
    str | None,
    typer.Option(help="float16 or float32.", show_default="float16 for float16 features, otherwise float32"),
]
MaxBytes = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="How much the file may claim to hold, such as 20GB.",
        show_default="32 times its size, at least 256 MiB",
    ),
]


def export(
    store: StoreArgument,
    file: Annotated[Path, typer.Argument(help="The HDF5 file to write.", metavar="FILE.h5")],
    root: Root = DEFAULT_ROOT,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a store into one HDF5 file, with all that it knows about itself; `import` makes exactly that store of it."""
    from tosca_cache.store import open_store
    from tosca_cache.store.exchange import export_store

    opened = open_store(locate(store, root))
    with _progress("export", sum(map(opened.rows, ("train", "test")))) as advance:
        export_store(opened, file, force=force, progress=advance)
    echo(f"{file}: {readable_size(file.stat().st_size)}")


def import_(
    file: Annotated[Path, typer.Argument(help="An exported store, or any .npz or .h5 file with features and labels.")],
    root: Root = DEFAULT_ROOT,
    dataset: Annotated[str | None, typer.Option(help="Name of the dataset, for features from elsewhere.")] = None,
    backbone: Backbone = "imported",
    features: Features = None,
    labels: Labels = None,
    split: Split = None,
    split_values: SplitValues = None,
    test: TestFile = None,
    test_fraction: TestFraction = None,
    seed: Annotated[int, typer.Option(help="Which rows --test-fraction takes.")] = 1993,
    views: Views = None,
    domains: Domains = None,
    paths: Paths = None,
    class_names: ClassNames = None,
    domain_names: DomainNames = None,
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="Features are bits of bfloat16, as uint16.")] = False,
    store_dtype: StoreDtype = None,
    max_bytes: MaxBytes = None,
) -> None:
    """Make a store of a file: of an exported store exactly what it was, of other features one to train on.

    An exported store needs no options. Other files need --dataset; which array is what is guessed by the names of arrays
    where it is not said, and printed. The file is not trusted: see docs/exchange.md for what is refused.
    """
    given = dict(locals())
    request = _request(given)
    done = _import(request)
    _print_imported(done, root)


def register(cache: typer.Typer) -> None:
    """Adds the verbs."""
    cache.command()(export)
    cache.command("import")(import_)


def _request(given: dict[str, Any]) -> ImportRequest:
    from tosca_cache.errors import UsageError
    from tosca_cache.extract.names import resolve_name
    from tosca_cache.store.exchange import ROLES, ImportRequest, Naming, parse_bytes, parse_choice

    said = {role: parse_choice(f"--{role.replace('_', '-')}", given[role]) for role in ROLES if given[role] is not None}
    naming = None
    if given["dataset"] is not None:
        arch, tag = resolve_name(given["backbone"])
        naming = Naming(given["dataset"], f"{arch}.{tag}" if tag else arch, given["store_dtype"])
    elif given["store_dtype"] is not None or given["backbone"] != "imported":
        option = "--store-dtype" if given["store_dtype"] is not None else "--backbone"
        raise UsageError("this goes with --dataset only", where=option, remedy="add --dataset NAME, or leave it out")
    return ImportRequest(
        given["file"],
        given["root"],
        naming,
        test_path=given["test"],
        said=said,
        division=_division(given),
        bfloat16=given["bfloat16"],
        most=None if given["max_bytes"] is None else parse_bytes(given["max_bytes"]),
    )


def _division(given: dict[str, Any]) -> Division:
    from tosca_cache.errors import UsageError
    from tosca_cache.store.exchange import Division

    values = given["split_values"]
    if values is None:
        return Division(given["test_fraction"], given["seed"])
    train, comma, test = values.partition(",")
    if not comma:
        raise UsageError(f"{values!r} is no pair", where="--split-values", remedy="give TRAIN,TEST, such as 0,2")
    return Division(given["test_fraction"], given["seed"], (train.strip(), test.strip()))


def _import(request: ImportRequest) -> Imported:
    from tosca_cache.store.exchange import Listener, import_files

    with _progress("import", None) as advance:
        return import_files(request, Listener(_print_roles, advance))


def _print_roles(path: Path, roles: Roles, unused: Sequence[str]) -> None:
    echo(f"{path}:")
    for role, name in roles.names.items():
        shown = ", ".join(part or "none" for part in name) if isinstance(name, tuple) else name
        echo(f"  {role.replace('_', ' ')}: {_safe(shown)}{' (guessed)' if role in roles.guessed else ''}")
    if unused:
        more = f" and {len(unused) - SHOWN} more" if len(unused) > SHOWN else ""
        echo(f"  not used: {_safe(', '.join(unused[:SHOWN]))}{more}")


def _safe(text: str) -> str:
    """Names of arrays come from a file that nobody vouches for, and must not steer the terminal."""
    return text if text.isprintable() else ascii(text)


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, once it is worth it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = make_console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console)
    task = bar.add_task(f"{what}: rows", total=total)

    def advance(rows: int) -> None:
        bar.update(task, advance=rows)
        if console.is_terminal and not bar.live.is_started and (total or bar.tasks[0].completed) >= LARGE:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()


def _print_imported(done: Imported, root: Path) -> None:
    from tosca_cache.store.remote import shown

    for note in done.notes:
        echo(f"note: {note}")
    if done.was_there:
        echo("this store is there already; nothing to do")
    echo(f"store: {shown(done.store.path)}")
    if done.store.spec.imported:
        echo(f"use it: {_train_command(done.store, root)}")


def _train_command(store: Store, root: Path) -> str:
    """The `tosca train` command that finds this store, whatever the shipped config of a dataset of that name asks for."""
    from tosca_cache.config import resolve
    from tosca_cache.runs.stores import wanted_fields
    from tosca_cache.store.remote import shown

    name, backbone = store.spec.dataset["name"], store.spec.backbone
    words = ["tosca", "train", "--dataset", name]
    wanted = wanted_fields(resolve(overrides={"dataset": name}).config)
    if "backbone.name" in wanted:
        words += ["--backbone", ".".join(part for part in (backbone["name"], backbone["tag"]) if part)]
    if wanted.get("views.count", store.spec.views["count"]) != store.spec.views["count"]:
        words += ["--views", str(store.spec.views["count"])]
    if root != DEFAULT_ROOT:
        words += ["--root", shown(root)]
    return shlex.join(words)
