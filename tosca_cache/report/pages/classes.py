"""What a run's page says of classes: accuracy by class, confused pairs with their photos, labels to be checked."""

from __future__ import annotations

from tosca_cache.report.pages.blocks import Block, Cell, Gallery, Photo, Table, Value

MOST_PAIRS = 30


def class_blocks(run: Value) -> list[Block]:
    """The blocks of a run's classes: accuracies, confused pairs, and photos where there are some."""
    found = run["classes"]
    rows: list[list[Cell]] = [
        [name, accuracy, rows, wrong]
        for name, accuracy, rows, wrong in zip(
            found["names"], found["accuracy"], found["test_rows"], found["taken_for"], strict=True
        )
    ]
    by_class = Table(
        "Accuracy by class",
        "After the last task, mean over seeds, the worst first; then what its photos are most often taken for.",
        ["class", "accuracy (%)", "test rows", "taken for"],
        sorted(rows, key=lambda row: (row[1] is None, row[1])),
        search=True,
    )
    pairs = Table(
        "Confused pairs",
        "Which photos of a class were answered with which other class, all seeds together, the most frequent first.",
        ["class", "answered", "times", "of the class (%)"],
        [list(pair) for pair in found["pairs"][:MOST_PAIRS]],
        search=True,
        more=max(0, len(found["pairs"]) - MOST_PAIRS),
    )
    return [by_class, pairs, *_photo_blocks(run.get("photos") or {})]


def _photo_blocks(photos: Value) -> list[Block]:
    blocks: list[Block] = []
    if confused := photos.get("confused"):
        groups = [
            (f"{pair['true']} answered as {pair['answered']}", [_photo(one) for one in pair["photos"]])
            for pair in confused
        ]
        reads = (
            "Misclassified test photos of the most confused pairs, each before the train photo of the wrong class whose "
            "features are nearest: often one sees why."
        )
        blocks.append(Gallery("What confused pairs look like", reads, groups, paired=True))
    if suspects := photos.get("suspects"):
        rows: list[list[Cell]] = [[s["path"], s["label"], s["probability"], s["instead"]] for s in suspects]
        reads = (
            "Train photos whose own label is unlikely to a classifier that was fitted without them (five folds, LDA on the "
            "features), the least likely first: look here for wrong labels."
        )
        columns = ["photo", "label", "probability of it", "more likely"]
        blocks.append(Table("Labels to be checked", reads, columns, rows, search=True, wide=True))
        shown = [Photo(s["key"], f"{s['path']}: {s['label']}, or {s['instead']}?") for s in suspects if s.get("key")]
        if shown:
            reads = (
                "The photos of the table above, in its order: the label that each has, and the one that is likelier."
            )
            blocks.append(Gallery("Photos of unlikely labels", reads, [("", shown)]))
    return blocks


def _photo(one: Value) -> Photo:
    return Photo(one["key"], one["caption"])
