"""Faults at every step of writing a store: the process dies before it, or the disk refuses it.

The steps are those that steps.py sees. Steps that are alike (those of the five arrays, of the two splits) are tried once in
`make test-long`, and a few of each kind in `make test`; benchmarks/soak_store.py tries every one.
"""

import errno
import re

import pytest
import scenes
from campaign import times
from commands import Fork
from scenes import SCENES
from steps import Fault, refusal, watched
from trees import everything

from tosca_cache.errors import StoreError
from tosca_cache.store import open_store


def steps_of(name, root):
    """All steps of an uninterrupted run."""
    seen = Fault()
    with watched(root, seen):
        SCENES[name].make(root / "s")
    return seen.steps


def chosen(steps):
    """The numbers of steps that are not like an earlier one."""
    found = {}
    for number, step in enumerate(steps):
        alike = re.sub(r"\b(train|test)\b", "SPLIT", f"{step.kind} {step.path}")
        alike = re.sub(r"\b(features|labels|domains|views|paths)\b", "ARRAY", alike)
        found.setdefault(re.sub(r"c\.[0-9.]*[0-9]", "OBJECT", alike), number)
    numbers = sorted(found.values())
    last = {steps[number].kind: number for number in numbers}
    return times(sorted({*numbers[::12], *last.values()}), numbers)


def gone_on_with(root, expected, at):
    """The next writer makes of what is left what an uninterrupted run makes, and leaves nothing else."""
    SCENES["plain"].make(root / "s")
    assert everything(root / "s") == expected, at
    assert {file.name for file in root.iterdir() if not file.name.endswith("lock")} == {"s"}, at


@pytest.mark.campaign
def test_a_process_that_dies_at_any_step_loses_nothing(whole, tmp_path):
    (tmp_path / "counted").mkdir()
    steps, expected = steps_of("plain", tmp_path / "counted"), whole("plain")
    for number in chosen(steps):
        root, at = tmp_path / str(number), f"before step {number}: {steps[number]}"
        root.mkdir()
        assert Fork(scenes.dying, root, number, scenes.make, "plain", root / "s").wait() == -9, at
        if (root / "s").exists():
            assert everything(root / "s") == expected, at
        else:
            with pytest.raises(StoreError, match=r"unfinished|does not exist"):
                open_store(root / "s")
        gone_on_with(root, expected, at)


@pytest.mark.campaign
def test_a_disk_that_refuses_any_step_is_one_clear_error(whole, tmp_path):
    (tmp_path / "counted").mkdir()
    steps = steps_of("plain", tmp_path / "counted")
    for number in chosen(steps):
        root, code = tmp_path / str(number), (errno.ENOSPC, errno.EIO)[number % 2]
        root.mkdir()
        at = f"step {number}: {steps[number]}"
        try:
            with watched(root, refusal(number, code)):
                SCENES["plain"].make(root / "s")
        except StoreError as error:
            assert ("disk is full" if code == errno.ENOSPC else "refuses") in error.problem, at
            assert error.where and "run the same command again" in error.remedy, at
        else:  # a lock's file that stays does no harm
            assert steps[number].path.endswith("lock") and steps[number].kind == "unlink", at
        gone_on_with(root, whole("plain"), at)
