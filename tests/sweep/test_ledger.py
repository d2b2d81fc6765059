"""The ledger: states against a plain model, leases; other files, damaged ones, full disks, read-only media."""

import contextlib
import os
import sqlite3
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from campaign import times
from commands import tosca
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sweep_help import NAMES, content, fill, sql

import tosca_cache
from tosca_cache.errors import RunError
from tosca_cache.sweep import ledger as leases
from tosca_cache.sweep import ledger_file
from tosca_cache.sweep.ledger import DIVERGED, DONE, FAILED, Finished, Ledger, LedgerCell

USERS = range(3)
OPEN, RUNNING = "open", "running"


class AgainstModel(RuleBasedStateMachine):
    """Any sequence of operations by three users leaves what a dict of (state, owner, result, reason, attempts) says."""

    names = st.lists(st.sampled_from([*NAMES, "unknown"]), max_size=5)
    user = st.sampled_from(USERS)

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger"
        self.users = [Ledger.open(self.path) for _ in USERS]
        self.model = {}

    def teardown(self):
        for user in self.users:
            user.close()
        self.folder.cleanup()

    @rule(user=user, names=names)
    def add(self, user, names):
        fill(self.users[user], names)
        self.model |= {name: [OPEN, None, None, None, 0] for name in names if name not in self.model}

    @rule(user=user, names=names)
    def claim(self, user, names):
        expected = {name for name in names if self.model.get(name, [DONE])[0] == OPEN}
        assert self.users[user].claim(names) == expected
        for name in expected:
            row = self.model[name]
            row[0], row[1], row[4] = RUNNING, user, row[4] + 1

    @rule(user=user, names=names, state=st.sampled_from([DONE, DIVERGED, FAILED]), number=st.integers(0, 9))
    def record(self, user, names, state, number):
        result, reason = (None, f"because {number}") if state != DONE else ({"score": number / 3}, None)
        self.users[user].record([Finished(name, state, result, reason) for name in names])
        for name in names:
            if self.model.get(name, [None, None])[:2] == [RUNNING, user]:
                self.model[name][:4] = [state, user, result, reason]

    @rule(user=user, names=names)
    def retry(self, user, names):
        self.users[user].retry(names)
        for name in names:
            if self.model.get(name, [None])[0] == FAILED:
                self.model[name][:3] = [OPEN, None, None]

    @rule(user=user, close=st.booleans())
    def stop(self, user, close):
        if close:
            self.users[user].close()
            self.users[user] = Ledger.open(self.path)
        else:
            self.users[user].release()
        for row in self.model.values():
            if row[:2] == [RUNNING, user]:
                row[:2] = [OPEN, None]

    @invariant()
    def all_users_see_the_model(self):
        for user in self.users:
            found = {cell.address: [cell.state, cell.result, cell.reason, cell.attempts] for cell in user.cells()}
            assert found == {name: [row[0], *row[2:]] for name, row in self.model.items()}
            assert list(found) == list(self.model)
        unfinished = {name for name, row in self.model.items() if row[0] in (OPEN, RUNNING)}
        assert self.users[0].unfinished([*NAMES, "unknown"]) == unfinished


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=times(20, 300), stateful_step_count=25)
TestAgainstModel.pytestmark = [pytest.mark.campaign]


def test_a_cell_says_all_that_is_known_of_it_and_what_makes_no_sense_is_refused(path):
    with Ledger.open(path) as ledger:
        with pytest.raises(ValueError, match="JSON"):
            ledger.add([("good", {}), ("bad", {"lr": float("nan")})])
        assert ledger.cells() == []
        fill(ledger)
        ledger.claim(["cell-1"])
        ledger.record([Finished("cell-1", DIVERGED, {"score": None}, "no file \udcff.png")])
    with Ledger.open(path, read_only=True) as ledger:
        found = ledger.cells(["cell-1", "unknown"])
    expected = LedgerCell("cell-1", content("cell-1"), DIVERGED, {"score": None}, r"no file \udcff.png", 1)
    assert found == [expected]


def test_threads_share_a_ledger_of_more_addresses_than_a_statement_has_variables(path):
    addresses = [f"{number:064x}" for number in range(33_000)]
    with Ledger.open(path) as ledger, ThreadPoolExecutor(4) as pool:
        fill(ledger, addresses)
        parts = pool.map(ledger.claim, [addresses[3:], addresses[3:], addresses[:5]])
        assert sorted(address for part in parts for address in part) == addresses
        ledger.record([Finished(address, DONE, {"score": 1.0}) for address in addresses])
        assert not ledger.unfinished(addresses)
        assert len(ledger.cells(addresses, state=DONE)) == len(addresses)


def test_an_owner_that_is_silent_too_long_has_lost_its_cells(path):
    with Ledger.open(path) as old, Ledger.open(path) as new:
        fill(old)
        assert old.claim(NAMES) == set(NAMES)
        late = "UPDATE owners SET beat = beat - 100"  # last heard of so much earlier
        sql(path, late)
        assert new.claim(NAMES) == set()
        sql(path, late)
        assert new.claim(NAMES[:3]) == set(NAMES[:3])
        new.record([Finished("cell-0", DONE, {"score": 1.0})])
        old.record([Finished(name, DONE, {"score": 3.0}) for name in NAMES])  # changes nothing that is another's now
        assert new.unfinished(NAMES) == {"cell-1", "cell-2"}
        assert [cell.result["score"] for cell in new.cells(state=DONE)] == [1.0, 3.0, 3.0, 3.0]
        assert [cell.attempts for cell in new.cells()] == [2, 2, 2, 1, 1, 1]


def test_an_owner_says_by_itself_that_it_lives(path, monkeypatch):
    monkeypatch.setattr(leases, "LEASE", 0.2)
    with Ledger.open(path) as ledger:
        fill(ledger)
        ledger.claim(NAMES)
        before, until = sql(path, "SELECT beat FROM owners"), time.monotonic() + 600
        while sql(path, "SELECT beat FROM owners") == before:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_an_owner_that_cannot_be_seen_from_here_is_believed(path, monkeypatch):
    with Ledger.open(path) as there, Ledger.open(path) as here:
        fill(there)
        with monkeypatch.context() as patch:
            patch.setattr(leases, "this_place", lambda: "another host")
            there.claim(NAMES)
        sql(path, "UPDATE owners SET pid = 2000000000")  # there is no such process here
        assert here.claim(NAMES) == set()
        sql(path, "UPDATE owners SET place = ?", leases.this_place())
        assert here.claim(NAMES) == set(NAMES)


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
        browser.execute("ROLLBACK")
        assert ledger.claim(NAMES) == set(NAMES)


def cut(keep, path):
    """Leaves so many bytes, or such a part of all."""
    os.truncate(path, keep if keep >= 1 else int(keep * path.stat().st_size))


def tear(path):
    with path.open("r+b") as file:
        file.seek(8 * 4096)
        file.write(os.urandom(4096))


OTHER, CUT = "not a sweep ledger(.|\n)*--ledger", "(not a sweep ledger|damaged)(.|\n)*(another file|Put back a copy)"
FORMAT = r"format (2|\(none\))(.|\n)*newer(.|\n)*--ledger"
SPOILED = {
    "short text": (lambda path: path.write_text("x"), OTHER),
    "long text": (lambda path: path.write_text("lr = 0.1\n" * 500), OTHER),
    "other": (lambda path: path.unlink() or sql(path, "CREATE TABLE cells (address TEXT, content TEXT)"), OTHER),
    "newer": (lambda path: sql(path, "UPDATE meta SET value = '2' WHERE key = 'schema'"), FORMAT),
    "no format": (lambda path: sql(path, "DELETE FROM meta"), FORMAT),
    **{f"cut at {keep}": (partial(cut, keep), CUT) for keep in (50, 1000, 4096, 0.3, 0.9)},
    "torn": (tear, "damaged(.|\n)*run anew"),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_what_is_no_whole_ledger_of_this_format_is_refused_and_left_alone(path, kind):
    with Ledger.open(path) as ledger:
        ledger.add((f"{number:064x}", {"padding": "x" * 500}) for number in range(200))
    spoil, words = SPOILED[kind]
    spoil(path)
    before = path.read_bytes()
    for options in ({}, {"read_only": True}) if kind != "torn" else ({},):
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


DAMAGE = [
    *(f"content = '{text}'" for text in ("{", "[]", "{}", CONTENT)),
    "content = replace(hex(zeroblob(200000)), '00', '[')",
    *(f"state = 'done', result = {text}" for text in RESULTS),
    "state = 'done', result = '{\"R\": ' || replace(hex(zeroblob(100000)), '00', '[')",
    *("attempts = 'many'", "address = x'00'"),
]


@pytest.mark.parametrize("damage", DAMAGE)
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
