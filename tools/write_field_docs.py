"""Writes docs/state-of-the-field.md from the published numbers; a test asserts that the file is what this script writes.

python tools/write_field_docs.py
"""

from __future__ import annotations

from pathlib import Path

from tosca_cache.compare.published import by_protocol, published
from tosca_cache.report.published import CAPTION, MEASURES, SHOWN, cells
from tosca_cache.text import markdown

TARGET = Path(__file__).parents[1] / "docs" / "state-of-the-field.md"
HEADER = """# State of the field

Written by `python tools/write_field_docs.py` from the table of published numbers that comes with the package:
{numbers:,} numbers from {sources} sources. `tosca reproduce --list --dataset cub` prints those of a dataset, and
`tosca compare --dataset cub --published` puts those of the same protocol beside yours.

How to read it:

- Frozen and adapted backbones are two tables. An adapted one was trained on the first task, or on every task: that gains
  more than any head, so the two are never compared.
- Several sources of one learner stand side by side: they differ by up to ten points. They are papers, logs in an author's
  repository, digitised figures (about 0.2 points), or second-hand.
- A_T is the last accuracy, A-bar the mean over tasks; A_T as a mean over tasks weighs every task alike.
- {caption}.
- The same paper may use ImageNet-21k or ImageNet-1k weights, resize CIFAR-100 to 224 or 256, split CUB in two ways, and
  often does not say so. SimpleCIL tells them apart, as nothing in it is trained:
  `tosca reproduce --which cifar100=76.2 --which cub=82.3`.

"""


def document() -> str:
    """The whole of docs/state-of-the-field.md."""
    records = published()
    sources = len({one.source for one in records})
    text = HEADER.format(numbers=len(records), sources=sources, caption=CAPTION)
    titles = ["learner", *(MEASURES[name] for name in SHOWN), "backbone", "adapted", "source"]
    for title, rows in by_protocol(records):
        filled = [n for n, name in enumerate(titles) if any(cells(row)[n] for row in rows)]
        text += f"## {title}\n\n| {' | '.join(titles[n] for n in filled)} |\n|{'---|' * len(filled)}\n"
        for row in rows:
            text += f"| {' | '.join(markdown(cells(row)[n]) for n in filled)} |\n"
        text += "\n"
    return text.rstrip() + "\n"


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
