"""The ledger: states against a plain model, and leases."""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from campaign import times
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from ledger_help import NAMES, content, fill, sql

from tosca_cache.sweep import ledger as ledger_file
from tosca_cache.sweep.ledger import DIVERGED, DONE, FAILED, Finished, Ledger

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
        assert ledger.claim(["cell-1"]) == {"cell-1"}
        ledger.record([Finished("cell-1", DIVERGED, {"score": None}, "no file \udcff.png")])
    with Ledger.open(path, read_only=True) as ledger:
        (cell,) = ledger.cells(["cell-1", "unknown"])
    assert cell.content == content("cell-1")
    assert (cell.state, cell.result, cell.attempts) == (DIVERGED, {"score": None}, 1)
    assert cell.reason == r"no file \udcff.png"


def test_threads_share_a_ledger_of_more_addresses_than_a_statement_has_variables(path):
    addresses = [f"{number:064x}" for number in range(33_000)]
    with Ledger.open(path) as ledger, ThreadPoolExecutor(4) as pool:
        fill(ledger, addresses)
        parts = pool.map(ledger.claim, [addresses[3:], addresses[3:], addresses[:5]])
        assert sorted(address for part in parts for address in part) == addresses
        ledger.record([Finished(address, DONE, {"score": 1.0}) for address in addresses])
        assert not ledger.unfinished(addresses)
        assert len(ledger.cells(addresses, state=DONE)) == len(addresses)


# Leases


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
    monkeypatch.setattr(ledger_file, "LEASE", 0.2)
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
            patch.setattr(ledger_file, "this_place", lambda: "another host")
            there.claim(NAMES)
        sql(path, "UPDATE owners SET pid = 2000000000")  # there is no such process here
        assert here.claim(NAMES) == set()
        sql(path, "UPDATE owners SET place = ?", ledger_file.this_place())
        assert here.claim(NAMES) == set(NAMES)
