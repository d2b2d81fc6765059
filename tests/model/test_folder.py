"""A model's folder under kills: before every step of writing, of undoing, and of clearing up after that."""

import hashlib
import shutil

import pytest
from campaign import times
from steps import Cut, Fault, cut, watched

from tosca_cache.errors import ModelError
from tosca_cache.model.folder import CARD, FILES, PREVIOUS, STATE, read_version, undo_version, write_version, writing
from tosca_cache.model.saved import is_model


def version(number):
    state = f"state {number}".encode()
    card = f"{number} {hashlib.sha256(state).hexdigest()}".encode()
    return {name: f"{name} {number}".encode() for name in FILES} | {CARD: card, STATE: state}


def write(folder, number=9):
    with writing(folder):
        write_version(folder, version(number))


def cut_off(change, folder, step):
    """Whether a change was ended before one of its steps."""
    try:
        with watched(folder, cut(step)):
            change(folder)
    except Cut:
        return True
    return False


def newest(folder):
    return int(read_version(folder)[CARD].split()[0])


def clear_up(folder):
    with writing(folder):
        pass


@pytest.mark.campaign
@pytest.mark.parametrize(("change", "after"), [(write, 9), (undo_version, 1)])
def test_a_folder_is_as_before_or_after_whatever_is_killed(change, after, tmp_path):
    start, once, twice = (tmp_path / name for name in ("start", "once", "twice"))
    for number in range(3):
        write(start, number)
    counted, seen = Fault(), set()
    shutil.copytree(start, once)
    with watched(once, counted):
        change(once)
    for step in range(0, len(counted.steps), times(7, 1)):
        shutil.rmtree(once)
        shutil.copytree(start, once)
        assert cut_off(change, once, step)
        found, again, killed = newest(once), 0, True
        seen.add(found)
        while killed:
            shutil.copytree(once, twice)
            killed = cut_off(clear_up, twice, again)
            assert newest(twice) == found
            clear_up(twice)
            assert {path.name for path in twice.iterdir()} <= {*FILES, PREVIOUS}
            assert {name: (twice / name).read_bytes() for name in FILES} == version(found)
            if change is write:  # the version before is kept as well
                undo_version(twice)
                assert newest(twice) == {2: 1, 9: 2}[found]
            shutil.rmtree(twice)
            again += times(4, 1)
    assert seen == {2, after}


def test_a_first_version_that_was_cut_off_is_no_model_and_in_nobodys_way(tmp_path):
    found = []
    for step in range(0, 40, 3):
        folder = tmp_path / str(step)
        cut_off(write, folder, step)
        found.append(is_model(folder))
        write(folder, 3)
        assert newest(folder) == 3
    assert set(found) == {True, False} and found == sorted(found)
    (tmp_path / "0" / "model.json").rename(tmp_path / "0" / "notes.txt")
    with pytest.raises(ModelError, match="in the way"):
        is_model(tmp_path / "0")
