"""`tosca compare` as a user meets it: one table in four forms, a learner in one file, failures, and going on."""

import json
import re
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path

import write_method_docs
from commands import Command, hold, tosca

from tosca_cache.errors import RunError
from tosca_cache.learners import LEARNERS
from tosca_cache.sweep.ledger import Ledger

LEDGER = "runs/digits-compare.sqlite"


def learner(name, body):
    """The file of a learner of class means that differs in something."""
    head = "from pathlib import Path\nfrom tosca_cache.learners import register_learner\n"
    head += "from tosca_cache.learners.simplecil import SimpleCil\n\n\n@register_learner\n"
    return f'{head}class Mine(SimpleCil):\n    """A test\'s."""\n\n    name = "{name}"\n    source = "a test"\n{body}'


RECENT = learner(  # favours the class that was seen last
    "recent",
    """
    def __init__(self, *, weight: float = 0.0, **common):
        super().__init__(**common)
        self.weight = weight

    def scores(self, features):
        scores = super().scores(features)
        scores[:, -1] += self.weight
        return scores
""",
)
FAILING = learner(
    "failing",
    """    rehearsal = True

    def observe(self, task, *, on_epoch=None):
        if self.seed == 1994 and task.number == 2:
            raise KeyError("no third task_for | me")
        super().observe(task)
""",
)
ROUTER = '''
import torch
from tosca_cache.routing import Router, register_router


@register_router
class First(Router):
    """Always the first module."""

    name = "first"
    source = "a test"

    def route(self, evidence):
        return torch.zeros(evidence.entropy.shape[1], dtype=torch.long)
'''


def compare(*arguments, **how):
    return tosca("compare", "--dataset", "digits", *arguments, **how)


def cells(state=None):
    """What the ledger has, by address; nothing before there is one."""
    with suppress(RunError), Ledger.open(Path(LEDGER), read_only=True) as book:
        return {cell.address: cell for cell in book.cells() if state in (None, cell.state)}
    return {}


def test_one_table_printed_as_json_in_markdown_and_in_latex(digits_place, plugins):
    bound = learner("perfect", "    bound = True\n    transductive = True\n")
    asked = ("--seeds", "2", "--methods", "simplecil,teen,perfect", "--plugin", plugins(bound))
    result = compare(*asked, "--json", code=0)
    assert re.search(r"simplecil, seed 1993: A_T [\d.]+, [\d.]+ s", result.stderr)
    found = json.loads(result.stdout)
    names = [row["method"] for row in found["rows"]]
    assert set(names) == {"simplecil", "teen", "perfect"} and names[-1] == "perfect"
    assert found["seeds"] == [1993, 1994] and found["task_sizes"] == [2] * 5
    accuracy, cost = ["average_accuracy", "last_accuracy", "forgetting"], ["stored_numbers", "trainable_parameters"]
    assert found["columns"] == [*accuracy, *cost, "train_seconds", "milliseconds"]
    accuracies = [[f"{row['values'][c]['mean']:.2f}" for c in accuracy] for row in found["rows"]]
    best = [f(a[c] for a in accuracies[:-1]) for c, f in zip(range(3), (max, max, min), strict=True)]
    bold = [[a[c] == best[c] for c in range(3)] for a in accuracies[:-1]] + [[False] * 3]

    def check(lines, separator, mark):
        """lines: name and entries of each learner, as written."""
        rows = [[part.strip() for part in line.split(separator)] for line in lines]
        assert [name.replace("{*}", "*").replace("\\", "") for name, *_ in rows] == [*names[:-1], "perfect*"]
        for (_, *entries), numbers, marked in zip(rows, accuracies, bold, strict=True):
            for entry, number, is_best in zip(entries[:3], numbers, marked, strict=True):
                assert number in entry and "±" in entry.replace(r"$\pm$", "±") and (mark in entry) is is_best
            assert entries[3].startswith("1,93") and entries[4] == "0"

    text = compare(*asked).stdout
    check([line.strip("│ ") for line in text.splitlines() if line.startswith("│")], "│", "**")
    assert "├" in text.splitlines()[6], "a rule above the bounds"
    assert "* its answer may depend on the other test rows (transductive): perfect" in text
    assert "bounds, not learners to be compared with: perfect" in text
    markdown, latex = (tosca("export-runs", LEDGER, "--to", form, code=0).stdout for form in ("markdown", "latex"))
    lines = [line.strip("| ") for line in markdown.splitlines() if line.startswith("|") and "bounds" not in line]
    assert lines[1] == "---|---:|---:|---:|---:|---:|---:|---:"
    check(lines[2:], "|", "**")
    body = latex[latex.index(r"\midrule") : latex.index(r"\bottomrule")]
    check([line.removesuffix(r"\\") for line in body.splitlines() if "&" in line], "&", "textbf")
    assert body.count(r"\midrule") == 2 and r"\begin{tabular}{lrrrrrrr}" in latex
    assert {cell.attempts for cell in cells().values()} == {1}, "the ledger was read, and nothing was run again"


def test_a_learner_in_one_file_with_an_option(digits_place, plugins):
    asked = ("--seeds", "1993", "--methods", "recent,simplecil", "--plugin", plugins(RECENT), "--json")

    def accuracies(*more):
        rows = json.loads(compare(*asked, *more).stdout)["rows"]
        return {(row["method"], *row["options"].values()): row["values"]["last_accuracy"]["mean"] for row in rows}

    assert len(set(accuracies().values())) == 1
    changed = accuracies("--set", "recent.weight=2")
    assert changed["recent", 2.0] < 30 < changed["simplecil",]
    assert len(cells()) == 3, "an option makes another cell; the other learner's stays"
    plugins(RECENT + "\n# edited\n")
    compare(*asked)
    assert len(cells()) == 4, "a learner that was edited is another one"


def test_a_failing_learner_stands_in_the_notes_and_the_rest_goes_on(digits_place, plugins):
    path = plugins(FAILING)
    result = compare("--seeds", "2", "--methods", "failing,simplecil", "--plugin", path, code=1)
    assert "[1] failing: failed with seed 1994: KeyError: 'no third task_for | me'" in result.stdout
    assert f"({path}, line" in result.stdout
    assert {cell.state for cell in cells().values()} == {"done", "failed"} and len(cells()) == 4
    lines = [line for line in result.stdout.splitlines() if line.startswith("│")]
    numbers = {line.split()[1]: re.findall(r"\d+\.\d\d", line) for line in lines}
    assert numbers["failing*"][1] == numbers["simplecil"][2], (
        "A_T of the seed that did not fail: it is that of any order"
    )
    compare("--seeds", "2", "--methods", "failing", "--plugin", path, code=1)
    for form, words in (("markdown", r"no third task\_for \| me"), ("latex", r"task\_for \textbar{} me")):
        assert words in tosca("export-runs", LEDGER, "--to", form).stdout
    tried = sorted(cell.attempts for cell in cells().values())
    assert tried == [1, 1, 1, 2], "what failed is tried again, and nothing else"


def test_batch_routing_is_said_to_leak_and_a_router_may_stand_in_one_file(digits_place, plugins):
    result = compare("--seeds", "1", "--methods", "tosca", "--router", "batch", "--epochs", "1", "--engine", "torch")
    for words in (
        "* its answer may depend on the other test rows (transductive): tosca",
        "its routing leaks the task through the order of the test file",
        "[1] tosca: router batch",
    ):
        assert words in result.stdout
    plugin = ("--plugin", plugins(ROUTER), "--runs", "trained")
    tosca("train", "--dataset", "digits", "--epochs", "1", "--router", "first", *plugin, code=0)
    routed = tosca("route", "last", "--routers", "first,sample", *plugin, "--json")
    found = {n: r["task_identification_accuracy"] for n, r in json.loads(routed.stdout)[0]["routers"].items()}
    assert found["first"] < 25 < found["sample"]


def test_killed_and_interrupted_the_same_command_runs_the_rest(digits_place):
    asked = ("compare", "--dataset", "digits", "--seeds", "4", "--methods", "simplecil")
    for end, status, done in ((Command.kill, -signal.SIGKILL, 1), (Command.interrupt, 130, 2)):
        before = cells("done")
        command = Command(*asked, before=partial(hold, "tosca_cache.sweep.ledger:Ledger", "record"))
        command.wait_until(lambda before=before: len(cells("done")) > len(before))
        assert end(command) == status
        assert len(cells("done")) == done and cells("done").items() >= before.items()
    assert "it goes on with what is not finished" in command.error
    assert sorted(cell.state for cell in cells().values()) == ["done", "done", "open", "open"]
    before = cells("done")
    seeds = json.loads(tosca(*asked, "--json", code=0).stdout)["rows"][0]["seeds"].values()
    assert len({seed["last_accuracy"] for seed in seeds}) == 1, "the order of classes does not matter to class means"
    after = cells("done")
    assert len(after) == len(seeds) == 4 and after.items() >= before.items()


def test_the_learners_are_listed_with_what_they_say_of_themselves(plugins):
    page = write_method_docs.TARGET.read_text(encoding="utf-8")
    assert page == write_method_docs.document(), "run: python tools/write_method_docs.py"
    listed = {f["name"]: f for f in json.loads(tosca("methods", "--plugin", plugins(RECENT), "--json").stdout)}
    assert listed.keys() == LEARNERS.keys() and "recent" in listed
    assert listed["recent"]["options"] == {"weight": 0.0}
    assert listed["ranpac"]["options"]["expansion"] == 10_000
    assert listed["adanpc"]["rehearsal"] and listed["lame"]["transductive"] and listed["joint-luca"]["bound"]
    words = " ".join(tosca("methods").stdout.split())
    assert all(name in words for name in listed)
    assert [facts["name"] for facts in json.loads(tosca("methods", "mos", "nmc", "--json").stdout)] == ["mos", "nmc"]
