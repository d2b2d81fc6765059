"""The ledger: states against a plain model, takeovers, and files that are no ledgers."""

from __future__ import annotations

import gc
import json
import os
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from ledger_help import NAMES, content, fill, sql

from tosca_cache.sweep.ledger import DIVERGED, DONE, FAILED, OPEN, RUNNING, STATES, Finished, Ledger

USERS = range(3)


class AgainstModel(RuleBasedStateMachine):
    """Any sequence of operations by three users leaves what a dict of (state, owner, outcome, attempts) says."""

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
        new = [name for name in dict.fromkeys(names) if name not in self.model]
        assert fill(self.users[user], names) == len(new)
        self.model |= {name: [OPEN, None, None, None, 0] for name in new}

    @rule(user=user, names=names, limit=st.none() | st.integers(0, 3))
    def claim(self, user, names, limit):
        expected = [name for name in dict.fromkeys(names) if self.model.get(name, [DONE])[0] == OPEN][:limit]
        assert self.users[user].claim(names, limit) == expected
        for name in expected:
            row = self.model[name]
            row[0], row[1], row[4] = RUNNING, user, row[4] + 1

    @rule(user=user, names=names, state=st.sampled_from([DONE, DIVERGED, FAILED]), number=st.integers(0, 9))
    def record(self, user, names, state, number):
        result, reason = (None, f"because {number}") if state != DONE else ({"score": number / 3}, None)
        mine = [name for name in dict.fromkeys(names) if self.model.get(name, [None, None])[:2] == [RUNNING, user]]
        assert self.users[user].record(Finished(name, state, result, reason) for name in names) == len(mine)
        for name in mine:
            self.model[name][:4] = [state, user, result, reason]

    @rule(user=user, names=names)
    def retry(self, user, names):
        again = [name for name in dict.fromkeys(names) if self.model.get(name, [None])[0] in (FAILED, DIVERGED)]
        assert self.users[user].retry(names) == len(again)
        for name in again:
            self.model[name][:3] = [OPEN, None, None]

    @rule(user=user, how=st.sampled_from(["release", "close", "drop"]))
    def stop(self, user, how):
        mine = [row for row in self.model.values() if row[:2] == [RUNNING, user]]
        if how == "release":
            assert self.users[user].release() == len(mine)
        elif how == "close":
            self.users[user].close()
            self.users[user] = Ledger.open(self.path)
        else:  # without a word: its cells are abandoned, and so for anybody to take
            self.users[user] = Ledger.open(self.path)
            gc.collect()
            taken = [name for name, row in self.model.items() if row[:2] == [RUNNING, user]]
            assert sorted(self.users[user].abandoned()) == sorted(taken)
            assert sorted(self.users[user].claim(taken)) == sorted(taken)
            for row in mine:
                row[4] += 1
            return
        for row in mine:
            row[:2] = [OPEN, None]

    @invariant()
    def all_users_see_the_model(self):
        for user in self.users:
            found = {cell.address: [cell.state, cell.result, cell.reason, cell.attempts] for cell in user.cells()}
            assert found == {name: [row[0], *row[2:]] for name, row in self.model.items()}
            assert list(found) == list(self.model)
        states = [row[0] for row in self.model.values()]
        assert self.users[0].counts() == {state: states.count(state) for state in STATES}
        assert self.users[0].abandoned() == []


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


def test_a_cell_says_all_that_is_known_of_it(path):
    with Ledger.open(path) as ledger:
        fill(ledger)
        assert ledger.claim(["cell-1", "cell-0"], 1) == ["cell-1"]
        (running,) = ledger.cells(state=RUNNING)
        assert running.owner == f"process {os.getpid()} on {socket.gethostname()}"
        assert running.since is not None
        assert ledger.diverged("cell-1", "loss is NaN", {"score": float("inf"), "R": [[float("nan"), 1]]})
    with Ledger.open(path, create=False) as ledger:
        (cell,) = ledger.cells(["cell-1", "unknown"])
    assert cell.content == content("cell-1")
    assert (cell.state, cell.reason, cell.attempts) == (DIVERGED, "loss is NaN", 1)
    assert cell.result == {"score": None, "R": [[None, 1]]}
    assert cell.finished >= cell.since == running.since
    assert cell.finished.endswith("+00:00")
    assert json.loads(sql(path, "SELECT result FROM cells WHERE address = 'cell-1'")[0][0]) == cell.result


def test_a_finished_cell_is_never_given_out_again(path):
    with Ledger.open(path) as ledger:
        fill(ledger)
        ledger.claim(NAMES[:3])
        assert ledger.done("cell-0", {"score": 1.0})
        assert ledger.diverged("cell-1", "d")
        assert ledger.failed("cell-2", "f")
        assert not ledger.done("cell-0", {"score": 2.0})
        assert not ledger.done("cell-5", {"score": 2.0})
        assert ledger.claim(NAMES) == NAMES[3:]
    with Ledger.open(path) as ledger:
        assert ledger.claim(NAMES[:3]) == []
        assert ledger.counts(NAMES[:3]) == {OPEN: 0, RUNNING: 0, DONE: 1, DIVERGED: 1, FAILED: 1}
        assert ledger.retry(NAMES) == 2
        assert ledger.claim(NAMES[:3]) == ["cell-1", "cell-2"]
        assert [(cell.reason, cell.attempts) for cell in ledger.cells(NAMES[:3])] == [(None, 1), ("d", 2), ("f", 2)]
        assert ledger.cells(["cell-0"])[0].result == {"score": 1.0}


def test_what_makes_no_sense_is_refused_before_anything_is_written(path):
    with pytest.raises(ValueError, match="end as"):
        Finished("a", RUNNING)
    with pytest.raises(ValueError, match="needs a result"):
        Finished("a", DONE)
    with pytest.raises(ValueError, match="needs a reason"):
        Finished("a", FAILED, {"score": 1.0})
    with Ledger.open(path) as ledger, pytest.raises(ValueError, match="JSON"):
        ledger.add([("good", {}), ("bad", {"lr": float("nan")})])
    with Ledger.open(path) as ledger:
        assert ledger.cells() == []


def test_a_reason_that_is_not_text(path):
    with Ledger.open(path) as ledger:
        fill(ledger)
        ledger.claim(NAMES)
        ledger.failed("cell-0", "no file \udcff.png")
        assert ledger.cells(["cell-0"])[0].reason == r"no file \udcff.png"


def test_more_addresses_than_a_statement_has_variables(path):
    addresses = [f"{number:064x}" for number in range(40_000)]
    with Ledger.open(path) as ledger:
        assert fill(ledger, addresses) == len(addresses)
        assert ledger.claim(addresses[::-1], 3) == addresses[:-4:-1]
        taken = ledger.claim(addresses)
        assert taken == addresses[:-3]
        assert ledger.record(Finished(address, DONE, {"score": 1.0}) for address in taken) == len(taken)
        assert ledger.counts(addresses[5:])[DONE] == len(taken) - 5
        assert len(ledger.cells(addresses[7:], state=DONE)) == len(taken) - 7


def test_threads_share_a_ledger(path):
    with Ledger.open(path) as ledger, ThreadPoolExecutor(4) as pool:
        fill(ledger)
        taken = [address for part in pool.map(lambda _: ledger.claim(NAMES, 1), range(12)) for address in part]
        assert sorted(taken) == NAMES
        assert all(pool.map(lambda address: ledger.done(address, {"score": 1.0}), taken))


def test_a_forked_child_neither_uses_nor_closes_its_parents_ledger(path):
    with Ledger.open(path) as ledger:
        fill(ledger)
        ledger.claim(NAMES)
        child = os.fork()
        if child == 0:
            try:
                ledger.counts()
            except RuntimeError:
                ledger.close()
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert ledger.counts()[RUNNING] == len(NAMES)
        assert ledger.done("cell-0", {"score": 1.0})


def test_an_interrupted_transaction_leaves_nothing(path):
    def cells():
        yield Finished("cell-0", DONE, {"score": 1.0})
        raise KeyboardInterrupt

    with Ledger.open(path) as ledger:
        fill(ledger)
        ledger.claim(NAMES)
        with pytest.raises(KeyboardInterrupt):
            ledger.record(cells())
        assert ledger.counts()[RUNNING] == len(NAMES)
    with Ledger.open(path) as ledger:
        assert ledger.counts()[OPEN] == len(NAMES)
