"""How often a campaign tries: a few times in `make test`, many times in `make test-long`.

@pytest.mark.campaign: runs in both, with `times(few, many)` rounds or examples.
@pytest.mark.long: runs in `make test-long` only; what it would show is shown smaller by another test of `make test`.
"""

import os

LONG = bool(os.environ.get("TOSCA_TEST_LONG"))


def times(few, many):
    """`few` in `make test`, `many` in `make test-long`."""
    return many if LONG else few
