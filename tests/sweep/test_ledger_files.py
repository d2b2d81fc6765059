"""Files that are no ledgers, damaged ones, full disks, read-only and network file systems."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from contextlib import closing

import pytest
from ledger_help import NAMES, fill, sql
from typer.testing import CliRunner

from tosca_cache.cli.app import app
from tosca_cache.errors import RunError
from tosca_cache.sweep import ledger_file
from tosca_cache.sweep.ledger import DONE, OPEN, Finished, Ledger


def test_odd_names_of_files(tmp_path):
    path = tmp_path / "ä 100% #1?mode=memory&x"
    with Ledger.open(path) as ledger:
        fill(ledger)
    with Ledger.open(path, read_only=True) as ledger:
        assert len(ledger.cells()) == len(NAMES)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_ledger_of_the_time_of_write_ahead_logs_goes_on(path):
    with Ledger.open(path) as ledger:
        fill(ledger)
    assert sql(path, "PRAGMA journal_mode = wal") == [("wal",)]
    with Ledger.open(path) as ledger, Ledger.open(path, read_only=True) as other:
        assert ledger.claim(NAMES) == set(NAMES)
        ledger.record([Finished("cell-0", DONE, {"score": 1.0})])
        assert other.counts(NAMES)[DONE] == 1


def test_one_that_is_held_too_long_is_an_error_that_names_the_remedy(path, monkeypatch):
    monkeypatch.setattr(ledger_file, "BUSY_SECONDS", 0.05)
    with Ledger.open(path) as ledger, closing(sqlite3.connect(path, isolation_level=None)) as browser:
        fill(ledger)
        browser.execute("BEGIN IMMEDIATE")
        with pytest.raises(RunError, match=r"locked(.|\n)*database browser"):
            ledger.claim(NAMES)
        assert ledger.counts(NAMES)[OPEN] == len(NAMES)
        browser.execute("ROLLBACK")
        assert ledger.claim(NAMES) == set(NAMES)


LOOKING = ({}, {"read_only": True})


def test_a_folder_or_nothing_is_no_ledger_and_none_is_made_by_looking_for_it(tmp_path):
    for options in LOOKING:
        with pytest.raises(RunError, match="this is a folder"):
            Ledger.open(tmp_path, **options)
        if options:
            with pytest.raises(RunError, match=r"no ledger here(.|\n)*tosca sweep"):
                Ledger.open(tmp_path / "none", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["x", "lr = 0.1\n" * 500, None], ids=["short", "long", "another program's database"])
def test_other_files_are_refused_and_left_alone(path, text):
    if text is None:
        sql(path, "CREATE TABLE cells (address TEXT, content TEXT)")
    else:
        path.write_text(text)
    before = path.read_bytes()
    for options in LOOKING:
        with pytest.raises(RunError, match=r"not a sweep ledger(.|\n)*--ledger"):
            Ledger.open(path, **options)
    assert path.read_bytes() == before


def test_an_empty_file_is_a_ledger_that_was_not_begun(path):
    path.touch()
    with pytest.raises(RunError, match="not a sweep ledger"):
        Ledger.open(path, read_only=True)
    with Ledger.open(path) as ledger:
        fill(ledger)
        assert len(ledger.cells()) == len(NAMES)


@pytest.mark.parametrize("version", ["2", None])
def test_a_ledger_of_another_version_is_refused(path, version):
    Ledger.open(path).close()
    if version is None:
        sql(path, "DELETE FROM meta")
    else:
        sql(path, "UPDATE meta SET value = ? WHERE key = 'schema'", version)
    for read_only in (False, True):
        with pytest.raises(RunError, match=r"format (2|\(none\))(.|\n)*newer(.|\n)*--ledger"):
            Ledger.open(path, read_only=read_only)


@pytest.mark.parametrize("keep", [50, 1000, 4096, 0.3, 0.9])
def test_a_truncated_ledger_is_refused(path, keep):
    with Ledger.open(path) as ledger:
        ledger.add((f"{number:064x}", {"padding": "x" * 500}) for number in range(200))
    data = path.read_bytes()
    kept = data[: keep if isinstance(keep, int) else int(keep * len(data))]
    path.write_bytes(kept)
    for options in LOOKING:
        with pytest.raises(RunError, match=r"(not a sweep ledger|damaged)(.|\n)*(another file|Put back a copy)"):
            Ledger.open(path, **options)
    assert path.read_bytes() == kept


def test_damage_inside_is_noticed(path):
    with Ledger.open(path) as ledger:
        ledger.add((f"{number:064x}", {"padding": "x" * 500}) for number in range(200))
    data = bytearray(path.read_bytes())
    data[8 * 4096 : 9 * 4096] = os.urandom(4096)
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"damaged(.|\n)*run anew"):
        Ledger.open(path)


def test_a_full_disk_stops_the_sweep_and_keeps_what_was_recorded(mounted):
    folder = mounted("size=1m")
    path = folder / "ledger"
    with Ledger.open(path) as ledger:
        fill(ledger)
        ledger.claim(NAMES)
        ledger.record([Finished("cell-0", DONE, {"score": 1.0})])
        ballast = folder / "ballast"
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
        assert ledger.counts(NAMES)[DONE] == 2
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_read_only_medium_can_be_looked_at_but_not_swept_on(mounted):
    folder = mounted("size=4m")
    path = folder / "ledger"
    with Ledger.open(path) as ledger:
        fill(ledger)
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    with pytest.raises(RunError, match=r"read-only(.|\n)*--ledger"):
        Ledger.open(path)
    with pytest.raises(RunError, match=r"read-only(.|\n)*--ledger"):
        Ledger.open(folder / "new")
    with pytest.raises(RunError, match=r"read-only(.|\n)*--ledger"):
        Ledger.open(folder / "sub" / "new")
    with Ledger.open(path, read_only=True) as ledger:
        assert ledger.counts(NAMES)[OPEN] == len(NAMES)
        assert [cell.address for cell in ledger.cells()] == NAMES


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; the read-only mount stands for this")
def test_a_folder_without_permission(tmp_path):
    path = tmp_path / "closed" / "ledger"
    with Ledger.open(path) as ledger:
        fill(ledger)
    path.parent.chmod(0o500)
    for name in (path, path.with_name("new")):
        with pytest.raises(RunError, match=r"may not write(.|\n)*--ledger"):
            Ledger.open(name)
    with Ledger.open(path, read_only=True) as ledger:
        assert len(ledger.cells()) == len(NAMES)
    path.parent.chmod(0o700)
    path.chmod(0o400)
    with pytest.raises(RunError, match=r"may not write(.|\n)*--ledger"):
        Ledger.open(path)


def test_looking_changes_nothing(path):
    with Ledger.open(path) as ledger:
        fill(ledger)
    before = path.read_bytes()
    with Ledger.open(path, read_only=True) as ledger, pytest.raises(RunError):
        ledger.claim(NAMES)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "damage",
    [
        "content = '{'",
        "content = '[]'",
        "content = '{}'",
        'content = \'{"setting": [], "seed": 1, "select": {}, "store": "s", "arithmetic": 1}\'',
        "content = replace(hex(zeroblob(200000)), '00', '[')",
        "state = 'done', result = NULL",
        "state = 'done', result = '[1]'",
        "state = 'done', result = '{\"score\": NaN}'",
        "state = 'done', result = '{\"score\": Infinity}'",
        "state = 'done', result = '{\"score\": 1e999}'",
        "state = 'done', result = '{\"R\": ' || replace(hex(zeroblob(100000)), '00', '[')",
        "state = 'done', result = x'00ff'",
        "attempts = 'many'",
        "address = x'00'",
    ],
)
def test_rows_that_another_program_wrote_are_no_results(path, damage):
    with Ledger.open(path) as ledger:
        fill(ledger)
    sql(path, f"UPDATE cells SET {damage} WHERE address = 'cell-1'")
    for more in ((), ("--json",), ("--csv",)):
        result = CliRunner().invoke(app, ["sweep", "show", str(path), *more])
        assert result.exit_code == 1 and "This ledger is damaged" in result.output, result.output
        assert "Traceback" not in result.output


def test_no_inodes_left_is_said_as_it_is(mounted):
    folder = mounted("size=4m,nr_inodes=8")
    for number in range(8):
        with contextlib.suppress(OSError):
            (folder / f"file-{number}").touch()
    for name in ("ledger", "sub/ledger"):
        with pytest.raises(RunError, match=r"inodes are in use(.|\n)*df -i(.|\n)*--ledger"):
            Ledger.open(folder / name)
