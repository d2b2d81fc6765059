"""Broken files of every kind: refused in our vocabulary or read; no crash, no hang, nothing outside the target.

tools/fuzz_store.py has the targets and runs them for longer; it says what a reader may do.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from campaign import times
from fuzz_inputs import mutate
from fuzz_store import TARGETS, Finding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TOOL = Path(__file__).parents[3] / "tools" / "fuzz_store.py"
EXAMPLES = {"manifest": 60, "plan": 60, "journal": 40, "npz": 150, "npz-import": 25, "hdf5": 25, "exported": 12}
SHARE = times(0.3, 3)


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    """Every target, made when it is first asked for, with its child if it has one."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = TARGETS[name](name, tmp_path_factory.mktemp(name))
        return made[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fuzz_store.LONGEST", 600.0)  # on a busy machine even starting a child takes its time
        yield get
    for target in made.values():
        target.close()


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_sound_is_read(targets, name):
    target = targets(name)
    outcomes = {target.attempt(data) for data in target.seeds}
    assert outcomes == ({"3 shards"} if name == "journal" else {"read"})


@pytest.mark.campaign
@pytest.mark.parametrize("name", TARGETS)
def test_what_is_broken_is_refused_in_words(targets, name):
    target = targets(name)

    @settings(max_examples=round(SHARE * EXAMPLES[name]), suppress_health_check=list(HealthCheck), database=None)
    @given(st.sampled_from(target.seeds), st.randoms(use_true_random=False))
    def attempt(seed, chance):
        assert target.attempt(mutate(seed, chance))

    attempt()


def test_a_finding_is_seen(targets, monkeypatch):
    """The targets can fail: a reader that lets an unknown exception out, and one that leaves something behind."""
    manifest, exported = targets("manifest"), targets("exported")
    monkeypatch.setattr(manifest, "_load", lambda path: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        manifest.attempt(manifest.seeds[0])
    (exported.folder / "root").mkdir(exist_ok=True)
    (exported.folder / "root" / "litter").touch()
    with pytest.raises(Finding, match="litter"):
        exported.attempt(b"nonsense")
    (exported.folder / "root" / "litter").unlink()


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_atheris_runs_for_a_moment(tmp_path):
    command = [sys.executable, str(TOOL), "--reader", "npz", "--seconds", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Done " in done.stderr
    assert not list(tmp_path.iterdir())
