"""A folder of small photos, and backbones that were adapted on it."""

import pytest
from commands import tosca
from photos import COLOURS, paint

# Two classes first, of seed 1; a few steps that change something.
STREAM = ("--increment", 2, "--seed", 1)
QUICK = ("--epochs", 3, "--batch-size", 4, "--lr", 0.05, "--scale", 10, "--workers", 1)


@pytest.fixture(scope="session")
def patterns(tmp_path_factory):
    """A folder of six classes of 8 train and 3 test photos."""
    root = tmp_path_factory.mktemp("pictures") / "patterns"
    for split, count in (("train", 8), ("test", 3)):
        paint(root / split, COLOURS, count, seed=count, size=32)
    return root


@pytest.fixture(scope="session")
def adapt(patterns):
    """Adapts vit_nano on the first task of the patterns: (out, further words) -> the new folder, or what was said."""

    def run(out, *words, dataset=patterns, fails=False):
        asked = ("adapt", "--dataset", dataset, "--backbone", "vit_nano", "--out", out, *STREAM, *QUICK, *words)
        result = tosca(*asked)
        assert bool(result.exit_code) == fails, result.output
        return result if fails else out / result.stdout.strip().rpartition("/")[2]

    return run


@pytest.fixture(scope="session")
def adapted(adapt, tmp_path_factory):
    """A backbone with adapters."""
    return adapt(tmp_path_factory.mktemp("adapted"))
