"""Writes docs/methods.md from the learners' own docstrings; a test asserts that the file is what this script writes.

python tools/write_method_docs.py
"""

from __future__ import annotations

from pathlib import Path

from tosca_cache.cli.methods import notes_of, options_of
from tosca_cache.learners import LEARNERS
from tosca_cache.learners.options import facts_of

TARGET = Path(__file__).parents[1] / "docs" / "methods.md"
HEADER = """# Learners

Written by `python tools/write_method_docs.py` from what each learner says of itself; `tosca methods` prints the same. All
work on the cached features of one store, see one task at a time, and stand in `tosca_cache/learners/`, a file a family,
whose head says what differs from the papers. `tosca compare` puts them side by side ([compare.md](compare.md)); an option
is set by `--set METHOD.OPTION=VALUE`. A learner of your own is one file: see there.

"Against the official code" is about what is computed from the features of a frozen backbone: what is called equal there
is compared, after every task, with plain float64 code of the published formulas (`tests/reference/official_*.py`), for
balanced and unbalanced classes and three seeds each. `tosca methods NAME` prints one learner.

"""


def document() -> str:
    """The whole of docs/methods.md."""
    heads = ["method", "what it is", "keeps, or differs in", "against the official code", "options and defaults"]
    rows = [f"| {' | '.join(heads)} |", "|---|---|---|---|---|"]
    for facts in (facts_of(kind) for _, kind in sorted(LEARNERS.items())):
        notes = f"*{notes_of(facts)}*" if notes_of(facts) else ""
        what = " ".join(part for part in (facts["what"], notes) if part)
        cells = [f"`{facts['name']}`", what, facts["keeps"], facts["agrees"], options_of(facts, "`")]
        rows.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return HEADER + "\n".join(rows) + "\n"


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
