"""Crafted and damaged stores, ledgers, runs and folders of images, through every command that takes them.

Whatever they hold: a command ends with a result or with one message, shows names as text, and writes where it was told to.
"""

import csv
import hashlib
import io
import json
import math
import os
import shutil
import sqlite3
import tomllib
from contextlib import chdir, closing, contextmanager, suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from campaign import times
from commands import tosca as tosca_command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from photos import make_splits

import tosca_cache as tosca
from tosca_cache.store.manifest import seal
from tosca_cache.store.spec import canonical
from tosca_cache.text import UNSAFE

ELSEWHERE = Path("/tmp/tosca-hostile-elsewhere")  # where no command has anything to write
QUICK = ("--epochs", "1", "--increment", "3", "--router", "sample")
# Names that mean something to a shell, a file system, a terminal, a spreadsheet, LaTeX, Markdown, HTML or Python.
NAMES = r"../../x ../x .. . ~ a/b -rf C:\x s3://b/x file:///x [/x] [red] [link=x] :smile: =1+1 +x @x $\frac$ |x|"
NAMES = [*NAMES.split(), "`x`", "<b>", "%s{}{0}", f"{ELSEWHERE}/x", "", "NaN", "null", "x" * 300, "é" * 150]
NAMES += ["\t=1", "a\rb", "a\nb", "a\0b", "\x1b[31mred", "\x1b]0;t\x07", "a\x9bb", "\u202egnp", "\ud800"]
HUGE = [10**18, -(10**18), 2**63, 2**64, 10**400, -1, 0]
texts = st.sampled_from(NAMES) | st.text(max_size=6)
finite = st.one_of(
    texts, st.none(), st.booleans(), st.sampled_from(HUGE), st.integers(-3, 300), st.sampled_from([0.5, 1e308, -1e-300])
)
values = st.recursive(
    finite,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
deep = st.sampled_from([30, 70, 300]).map(lambda depth: json.loads("[" * depth + "]" * depth))


def some(few):
    """So many examples in `make test`, hundreds in `make test-long`."""
    return settings(max_examples=times(few, 300), suppress_health_check=[HealthCheck.too_slow])


def run(*words, may_fail_silently=False):
    """A command in this process; what holds for every one of them."""
    result = tosca_command(*words)
    assert result.exit_code in (0, 1, 2), (words, result.exit_code)
    assert not UNSAFE.search(result.output), (words, UNSAFE.search(result.output))
    if result.exit_code and not may_fail_silently:
        assert "error: " in result.stderr or "Error" in result.stderr, (words, result.output)
    if "--json" in words and result.exit_code == 0:
        json.loads(result.stdout, parse_constant=pytest.fail)
    return result


def ask(function, *arguments, **more):
    """A call of the Python interface, which may refuse what it is given; None if it does."""
    try:
        return function(*arguments, **more)
    except tosca.ToscaError as error:
        assert error.problem
        return None


def snapshot(folder):
    """Every path below a folder but those below `out`, with size and time."""
    found = {}
    for root, folders, files in os.walk(folder):
        if "out" in folders:
            folders.remove("out")
        for path in (Path(root, name) for name in (*folders, *files)):
            seen = path.lstat()
            found[str(path)] = (seen.st_size, seen.st_mtime_ns) if path.is_file() else None
    return found


@contextmanager
def spoiled(original, spoil, name="given"):
    """(a spoiled copy of a folder or file, a folder to write to); nothing else is changed within.

    spoil: changes what lies at a path, and gives the path that it lies at then, if it is another.
    """
    with TemporaryDirectory() as base:
        here = Path(base, "deep", "er", "here")
        out, given = here / "out", here / name
        out.mkdir(parents=True)
        shutil.copytree(original, given) if original.is_dir() else shutil.copy(original, given)
        with chdir(here):
            given = spoil(given) or given
            sealed = snapshot(base)
            yield given, out
            assert snapshot(base) == sealed
            assert not ELSEWHERE.exists()


@st.composite
def changes(draw, inner=values):
    """A change of one place of a JSON value, chosen by numbers: a function value -> changed copy."""
    steps = draw(st.lists(st.integers(0, 997), min_size=1, max_size=9))
    kind, value, name = draw(st.sampled_from(["replace", "replace", "remove", "add"])), draw(inner), draw(texts)

    def change(original):
        root = {"": deepcopy(original)}
        holder, key = root, ""
        for step in steps:
            found = holder[key]
            if not isinstance(found, dict | list) or not found:
                break
            holder, key = found, [*(found if isinstance(found, dict) else range(len(found)))][step % len(found)]
        if kind == "remove":
            del holder[key]
        elif kind == "add" and isinstance(holder, list):
            holder.append(value)
        else:
            holder[name if kind == "add" and holder is not root else key] = value
        return root.get("")

    return change


@st.composite
def damages(draw):
    """What may happen to any file: a function of its path."""
    kind = draw(st.sampled_from(["cut", "flip", "empty", "junk", "deep", "gone", "folder", "link", "pipe"]))
    where, bit = draw(st.floats(0, 1)), draw(st.integers(0, 7))

    def damage(path):
        data = path.read_bytes()
        place = min(int(where * len(data)), len(data) - 1)
        written = {"cut": data[:place], "flip": data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]}
        written |= {"empty": b"", "junk": b"\xff\xfe\0x" * 99, "deep": b"[" * 100_000}
        path.unlink()
        if kind in written:
            path.write_bytes(written[kind])
        elif kind == "folder":
            path.mkdir()
        elif kind == "link":
            path.symlink_to("/etc/passwd")
        elif kind == "pipe":
            os.mkfifo(path)

    return damage


# Stores


@pytest.fixture(scope="module")
def store(make_store, tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("hostile") / "store", views=1).path


def reseal(path, change):
    """Changes the manifest of a store, and seals it as ours are: the seal is no secret."""
    body = json.loads((path / "manifest.json").read_text())
    changed = change(
        {key: value for key, value in body.items() if key not in ("digest", "format", "fingerprint_digest")}
    )
    try:
        if isinstance(changed, dict) and "fingerprint" in changed:
            text = canonical(changed["fingerprint"])
            changed["fingerprint_digest"] = hashlib.sha256(text.encode()).hexdigest()
        data = seal(changed)
    except (TypeError, ValueError):  # what no JSON object can be
        data = json.dumps(changed).encode()
    for name in ("manifest.json", "manifest.copy.json"):
        (path / name).write_bytes(data)


WORK = {
    "train": QUICK,
    "compare": ("--methods", "simplecil,slda", "--seeds", "1", "--increment", "3"),
    "sweep": (
        *("--select", "test-oracle", "--report-seeds", "1", "--set", "lr=0.1,0.2", "--set", "epochs=1"),
        *("--set", "increment=3", "--set", "router=sample"),
    ),
}


def work(command, store, option, place):
    """Trains, compares or searches on a store. option, place: where the results go."""
    run(command, "--store", store, option, place, *WORK[command], may_fail_silently=command != "train")


STORE_DOORS = {
    "info": lambda path, out: run("cache", "info", path),
    "ls": lambda path, out: run("cache", "ls", "--root", path.parent),
    "verify": lambda path, out: run("cache", "verify", path, may_fail_silently=True),
    "train": lambda path, out: work("train", path, "--runs", out / "a" / "b"),
    "compare": lambda path, out: work("compare", path, "--runs", out / "a" / "b"),
    "sweep": lambda path, out: work("sweep", path, "--runs", out / "a" / "b"),
    "python": lambda path, out: from_python(path),
}


def from_python(path):
    opened = ask(tosca.open_store, path)
    ask(tosca.verify_store, path)
    if opened is not None:
        stream = ask(tosca.task_stream, opened, increment=3)
        for shown in filter(None, (opened, opened.manifest, stream)):
            assert not UNSAFE.search(repr(shown) + shown._repr_html_()) and "\n" not in repr(shown)


def rename(path, name, key):
    """Puts a name into a store's manifest."""

    def change(body):
        spec = body["fingerprint"]
        holder, place, value = {
            "class": (body["class_names"], 0, name),
            "domain": (body["domain_names"], 0, name),
            "dataset": (spec["dataset"], "name", name),
            "backbone": (spec["backbone"], "name", name),
            "tag": (spec["backbone"], "tag", name),
            "left_out": (body, "left_out", {name: {"count": 1, "paths": [name]}}),
            "numerics": (body["numerics"], name, name),
            "skipped": (body["skipped"], "train", [{"row": 0, "path": name, "reason": name}]),
        }[key]
        holder[place] = value
        return body

    reseal(path, change)


def damage_one(path, damage, number):
    """Damages one of the files of a folder."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    damage(files[number % len(files)])


def change_provenance(path, change, sealed):
    changed = change(json.loads((path / "provenance.json").read_text()))
    data = seal(changed) if sealed and isinstance(changed, dict) else json.dumps(changed).encode()
    (path / "provenance.json").write_bytes(data)


def spoiling(function, **drawn):
    """Functions of a path that spoil what lies there, with what is drawn."""
    return st.fixed_dictionaries(drawn).map(lambda given: partial(function, **given))


NAMED = st.sampled_from(["class", "domain", "dataset", "backbone", "tag", "left_out", "numerics", "skipped"])
SPOILED_STORES = {
    "manifest": spoiling(reseal, change=changes(values | deep)),
    "names": spoiling(rename, name=texts, key=NAMED),
    "files": spoiling(damage_one, damage=damages(), number=st.integers(0, 997)),
    "provenance": spoiling(change_provenance, change=changes(values | deep), sealed=st.booleans()),
}


@pytest.mark.parametrize("kind", SPOILED_STORES)
@some(4)
@given(data=st.data(), doors=st.sets(st.sampled_from(sorted(STORE_DOORS)), min_size=1, max_size=2))
def test_spoiled_stores(store, kind, data, doors):
    with spoiled(store, data.draw(SPOILED_STORES[kind])) as (path, out):
        for door in sorted({"info"} | doors):
            STORE_DOORS[door](path, out)


# Ledgers


@pytest.fixture(scope="module")
def ledgers(store, tmp_path_factory):
    """The folder of a sweep's and a comparison's, by command."""
    out = tmp_path_factory.mktemp("ledgers")
    for command in ("sweep", "compare"):
        work(command, store, "--ledger", out / command)
    return out


COLUMNS = ("address", "content", "state", "result", "reason", "owner", "since", "finished", "attempts")
sqlite = st.one_of(texts.map(lambda text: text.encode("utf-8", "replace").decode()), st.binary(max_size=4), st.none())
sqlite |= st.sampled_from([0, -1, 2**62, 1e300, math.inf, "open", "running", "done", "diverged", "failed"])
STATEMENTS = [
    *("DELETE FROM meta", "DELETE FROM owners", "DELETE FROM cells", "DROP TABLE cells", "DROP TABLE owners"),
    *("UPDATE meta SET value = '../x'", "UPDATE cells SET state = 'running'", "PRAGMA application_id = 1"),
    "UPDATE owners SET pid = 1e300, beat = 'x', host = char(27) || '[31m'",
    "CREATE TRIGGER t AFTER UPDATE ON cells BEGIN DELETE FROM cells; END",
    "ALTER TABLE cells ADD COLUMN more TEXT",
]


def change_row(path, column, change, value, as_json, row):
    """Spoils one cell of a ledger."""
    with closing(sqlite3.connect(path)) as connection, connection, suppress(sqlite3.IntegrityError):
        connection.execute("PRAGMA ignore_check_constraints = ON")
        rows = connection.execute(f"SELECT rowid, {column} FROM cells").fetchall()
        number, found = rows[row % len(rows)]
        written = json.dumps(change(json.loads(found))) if as_json and column in ("content", "result") else value
        connection.execute(f"UPDATE OR REPLACE cells SET {column} = ? WHERE rowid = ?", (written, number))


def execute(path, statement):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


SPOILED_LEDGERS = {
    "row": spoiling(
        change_row,
        column=st.sampled_from([*COLUMNS, "content", "result", "content", "result"]),
        **{"change": changes(values | deep), "value": sqlite, "as_json": st.booleans(), "row": st.integers(0, 3)},
    ),
    "table": spoiling(execute, statement=st.sampled_from(STATEMENTS)),
    "file": damages(),
}


@pytest.mark.parametrize("kind", SPOILED_LEDGERS)
@some(3)
@given(data=st.data(), command=st.sampled_from(["sweep", "compare"]))
def test_spoiled_ledgers(store, ledgers, kind, data, command):
    with spoiled(ledgers / command, data.draw(SPOILED_LEDGERS[kind]), "out/l.sqlite") as (path, _):
        run("export-runs", path, "--to", "csv")  # reads all that a page says
        work(command, store, "--ledger", path)


# Runs


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    """A run of two seeds."""
    runs = tmp_path_factory.mktemp("runs")
    run("train", "--store", store, "--runs", runs, *QUICK, "--seed", "1,2")
    (path,) = runs.iterdir()
    return path


RUN_DOORS = {
    "list": lambda path, out: run("show", "--runs", path.parent),
    "show": lambda path, out: run("show", path),
    "show --json": lambda path, out: run("show", path, "--json"),
    "route": lambda path, out: run("route", path, "--routers", "sample"),
    "repeat": lambda path, out: run("train", "--config", path / "config.toml", "--show-config"),
}


@some(14)
@given(
    change=changes(values | deep),
    damage=st.none() | damages(),
    name=st.sampled_from(
        ["metrics.json", "metrics.json", "config.toml", "provenance.json", "seed-1/learner.safetensors"]
    ),
    door=st.sampled_from(sorted(RUN_DOORS)),
)
def test_runs_of_changed_files(trained, change, damage, name, door):
    def spoil(path):
        file = path / name
        if damage is not None:
            damage(file)
        elif name == "config.toml":  # its values are another test's
            file.write_text(str(change(tomllib.loads(file.read_text()))), encoding="utf-8", errors="replace")
        elif name.endswith(".json"):
            file.write_text(json.dumps(change(json.loads(file.read_text()))))
        else:
            data = file.read_bytes()
            size = int.from_bytes(data[:8], "little")
            header = json.dumps(change(json.loads(data[8 : 8 + size]))).encode()
            file.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])

    with spoiled(trained, spoil) as (path, out):
        RUN_DOORS[door](path, out)


# Folders and lists of images


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_splits(tmp_path_factory.mktemp("photos") / "photos", ("ant", "bee"))


def extracts(dataset, out, *more):
    run("extract", "--dataset", dataset, "--backbone", "vit_nano", "--views", "1", "--root", out / "cache", *more)
    for path in out.glob("cache/*"):
        STORE_DOORS["info"](path, out)
        STORE_DOORS["train"](path, out)


file_names = texts.filter(lambda name: name not in ("", ".", "..") and "/" not in name and "\0" not in name).map(
    lambda name: os.fsdecode(name.encode("utf-8", "surrogatepass")[:250])
)


@some(3)
@given(
    name=file_names,
    what=st.sampled_from(["class", "file", "more", "domain", "dataset"]),
    damage=st.none() | damages(),
    on_error=st.sampled_from(["skip", "fail"]),
)
def test_folders_of_odd_names_and_damaged_images(photos, name, what, damage, on_error):
    def spoil(path):
        image = path / "train" / "ant" / "1.png"
        match what:
            case "class":
                for split in ("train", "test"):
                    (path / split / "bee").rename(path / split / name)
            case "file":
                image = image.rename(image.with_name(name))
            case "more":
                shutil.copy(image, path / "train" / "bee" / f"{name[:100]}.png")
            case "domain":
                domains = path.parent / "domains"
                shutil.copytree(path, domains / "first")
                path, image = domains, path.rename(domains / name) / "train" / "ant" / "1.png"
            case "dataset":
                path = path.rename(path.with_name(name))
                image = path / "train" / "ant" / "1.png"
        if damage is not None and image.exists():
            damage(image)
        return path

    with spoiled(photos, spoil) as (path, out):
        extracts(path, out, "--on-error", on_error)


@some(4)
@given(
    rows=st.lists(st.tuples(texts, texts), max_size=3),
    columns=st.sampled_from([("path", "label"), ("path", "label", "split"), ("label", "path"), ("path",), ("x", "y")]),
    damage=st.none() | damages(),
)
def test_lists_of_odd_rows(photos, rows, columns, damage):
    def spoil(path):
        file, text = path.parent / "list.csv", io.StringIO()
        images = [image.relative_to(path.parent) for image in sorted(path.rglob("*.png"))]
        writer = csv.writer(text)
        writer.writerow(columns)
        for given_path, label in [*((image.as_posix(), image.parts[2]) for image in images), *rows]:
            split = "test" if "/test/" in given_path else "train"
            row = {"path": given_path, "label": label, "split": split}
            writer.writerow([row.get(column, "") for column in columns])
        file.write_text(text.getvalue(), encoding="utf-8", errors="surrogatepass")
        if damage is not None:
            damage(file)
        return file

    with spoiled(photos, spoil, "photos") as (file, out):
        extracts(file, out, "--on-error", "skip", *(() if "split" in columns else ("--test-fraction", "0.5")))
