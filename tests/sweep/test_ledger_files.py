"""Files that are no ledgers, damaged ones, full disks, read-only and network file systems."""

import contextlib
import os
import sqlite3
import subprocess
from contextlib import closing
from functools import partial

import pytest
from commands import tosca
from ledger_help import NAMES, fill, sql

import tosca_cache
from tosca_cache.errors import RunError
from tosca_cache.sweep import ledger_file
from tosca_cache.sweep.ledger import DONE, Finished, Ledger


def test_odd_names_of_files_and_looking_changes_nothing(tmp_path):
    path = tmp_path / "ä 100% #1?mode=memory&x"
    path.touch()
    with pytest.raises(RunError, match="not a sweep ledger"):
        Ledger.open(path, read_only=True)
    with Ledger.open(path) as ledger:  # an empty file is one that was not begun
        fill(ledger)
    before = path.read_bytes()
    with Ledger.open(path, read_only=True) as ledger:
        assert len(ledger.cells()) == len(NAMES)
        with pytest.raises(RunError):
            ledger.claim(NAMES)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == [path.name]


def test_one_that_is_held_too_long_is_an_error_that_names_the_remedy(path, monkeypatch):
    monkeypatch.setattr(ledger_file, "BUSY_SECONDS", 0.05)
    with Ledger.open(path) as ledger, closing(sqlite3.connect(path, isolation_level=None)) as browser:
        fill(ledger)
        browser.execute("BEGIN IMMEDIATE")
        with pytest.raises(RunError, match=r"locked(.|\n)*database browser"):
            ledger.claim(NAMES)
        assert ledger.unfinished(NAMES) == set(NAMES)
        browser.execute("ROLLBACK")
        assert ledger.claim(NAMES) == set(NAMES)


def cut(keep, path):
    """Leaves so many bytes, or such a part of all."""
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])


def tear(path):
    data = bytearray(path.read_bytes())
    data[8 * 4096 : 9 * 4096] = os.urandom(4096)
    path.write_bytes(data)


OTHER, CUT = "not a sweep ledger(.|\n)*--ledger", "(not a sweep ledger|damaged)(.|\n)*(another file|Put back a copy)"
FORMAT = r"format (2|\(none\))(.|\n)*newer(.|\n)*--ledger"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_text("x"), OTHER),
        (lambda path: path.write_text("lr = 0.1\n" * 500), OTHER),
        (lambda path: path.unlink() or sql(path, "CREATE TABLE cells (address TEXT, content TEXT)"), OTHER),
        (lambda path: sql(path, "UPDATE meta SET value = '2' WHERE key = 'schema'"), FORMAT),
        (lambda path: sql(path, "DELETE FROM meta"), FORMAT),
        *((partial(cut, keep), CUT) for keep in (50, 1000, 4096, 0.3, 0.9)),
        (tear, "damaged(.|\n)*run anew"),
    ],
    ids=["short text", "long text", "other database", "newer", "none", "50", "1000", "4096", "0.3", "0.9", "torn"],
)
def test_what_is_no_whole_ledger_of_this_format_is_refused_and_left_alone(path, spoil, words):
    with Ledger.open(path) as ledger:
        ledger.add((f"{number:064x}", {"padding": "x" * 500}) for number in range(200))
    spoil(path)
    before = path.read_bytes()
    for options in ({}, {"read_only": True}) if spoil is not tear else ({},):
        with pytest.raises(RunError, match=words):
            Ledger.open(path, **options)
    assert path.read_bytes() == before


def test_a_folder_a_pipe_or_nothing_is_no_ledger_and_none_is_made_by_looking_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for options in ({}, {"read_only": True}):
        with pytest.raises(RunError, match="this is a folder"):
            Ledger.open(tmp_path, **options)
        with pytest.raises(RunError, match="this is a pipe"):
            Ledger.open(tmp_path / "pipe", **options)
    with pytest.raises(RunError, match=r"no ledger here(.|\n)*tosca sweep"):
        Ledger.open(tmp_path / "none", read_only=True)
    assert [one.name for one in tmp_path.iterdir()] == ["pipe"]


CONTENT = '{"setting": [], "seed": 1, "select": {}, "store": "s", "arithmetic": 1}'
RESULTS = ["'[1]'", "'{\"score\": NaN}'", "'{\"score\": Infinity}'", "'{\"score\": 1e999}'", "x'00ff'", "NULL"]


@pytest.mark.parametrize(
    "damage",
    [
        *(f"content = '{text}'" for text in ("{", "[]", "{}", CONTENT)),
        "content = replace(hex(zeroblob(200000)), '00', '[')",
        *(f"state = 'done', result = {text}" for text in RESULTS),
        "state = 'done', result = '{\"R\": ' || replace(hex(zeroblob(100000)), '00', '[')",
        "attempts = 'many'",
        "address = x'00'",
    ],
)
def test_rows_that_another_program_wrote_are_no_results(path, damage):
    with Ledger.open(path) as ledger:
        fill(ledger)
    sql(path, f"UPDATE cells SET {damage} WHERE address = 'cell-1'")
    assert "This ledger is damaged" in tosca("report", path, code=1).output
    with pytest.raises(RunError, match="This ledger is damaged"):
        tosca_cache.ledger(path)


def test_a_full_disk_stops_the_sweep_and_keeps_what_was_recorded(mounted):
    folder = mounted("size=1m")
    path, ballast = folder / "ledger", folder / "ballast"
    with Ledger.open(path) as ledger:
        fill(ledger)
        ledger.claim(NAMES)
        ledger.record([Finished("cell-0", DONE, {"score": 1.0})])
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\0" * 4096):
                pass
        with pytest.raises(RunError, match=r"disk is full(.|\n)*--ledger(.|\n)*finished cells are kept"):
            ledger.record([Finished("cell-1", DONE, {"padding": "x" * 200_000})])
        with pytest.raises(RunError, match="disk is full"):
            Ledger.open(folder / "second")
        ballast.unlink()
        ledger.record([Finished("cell-2", DONE, {"score": 2.0})])  # the same ledger can go on once there is space
    with Ledger.open(path) as ledger:
        assert len(ledger.cells(NAMES, state=DONE)) == 2
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_read_only_medium_can_be_looked_at_but_not_swept_on(mounted):
    folder = mounted("size=4m")
    path = folder / "ledger"
    with Ledger.open(path) as ledger:
        fill(ledger)
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    for name in ("ledger", "new", "sub/new"):
        with pytest.raises(RunError, match=r"read-only(.|\n)*--ledger"):
            Ledger.open(folder / name)
    with Ledger.open(path, read_only=True) as ledger:
        assert [cell.address for cell in ledger.cells()] == NAMES


def test_no_inodes_left_is_said_as_it_is(mounted):
    folder = mounted("size=4m,nr_inodes=8")
    for number in range(8):
        with contextlib.suppress(OSError):
            (folder / f"file-{number}").touch()
    for name in ("ledger", "sub/ledger"):
        with pytest.raises(RunError, match=r"inodes are in use(.|\n)*df -i(.|\n)*--ledger"):
            Ledger.open(folder / name)
