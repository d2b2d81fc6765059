"""The part of a store: what it holds, counts by class, a map of its features, near duplicates, and suspicious rows."""

from __future__ import annotations

from collections.abc import Sequence

from tosca_cache.report.pages.blocks import Block, Cell, Facts, Figure, Gallery, Part, Table, Value
from tosca_cache.report.pages.charts import Point, scatter
from tosca_cache.report.pages.svg import COLOURS, SHAPES

MOST_NAMED = COLOURS * SHAPES  # groups that differ in colour or shape


def store_part(store: Value) -> Part:
    """The part of a store; see `store.report_facts.store_facts` for what it is given."""
    rows = store["rows"]
    numbers = [
        ("train images, test images", f"{rows['train']:,}, {rows['test']:,}"),
        ("classes", f"{len(store['classes']):,}"),
        ("test images with an equal or nearly equal train image", f"{len(store['duplicates']):,}"),
    ]
    about: list[tuple[str, Cell]] = [(str(k), str(v)) for k, v in store["about"].items()]
    reads = "What made these features; the same fingerprint means the same features, bit for bit."
    known: list[tuple[str, Cell]] = [(str(k), str(v)) for k, v in store["provenance"].items()]
    sections: list[tuple[str, list[Block]]] = [
        ("Store", [*_maps(store), _counts(store)]),
        ("Checks", _checks(store)),
        ("Provenance", [Facts("Where the features come from", known, reads, wide=True)]),
    ]
    return Part(store["name"], "Store", about, numbers, _warnings(store), sections)


def _warnings(store: Value) -> list[str]:
    said = []
    if store["duplicates"]:
        said.append(f"{len(store['duplicates'])} test images have an equal or nearly equal train image: data may leak.")
    if store["constant"]:
        said.append(
            f"{len(store['constant'])} images share their features with many others, or have none: look at them."
        )
    if store["skipped"]:
        said.append(f"{len(store['skipped'])} images could not be read and were skipped.")
    error = store.get("precision_error")
    if error is not None and error > 0.03:
        said.append(f"The features are far from float32: relative error {error:.3f}.")
    return said


def _maps(store: Value) -> list[Block]:
    found = store["map"]
    if not found["points"]:
        return []
    blocks: list[Block] = [
        map_figure("Map of the features", found, [point[2] for point in found["points"]], found["classes"], "class")
    ]
    if found.get("domains"):
        title = "Map of the features by domain"
        blocks.append(map_figure(title, found, found["domain_of"], found["domains"], "domain"))
    return blocks


def _counts(store: Value) -> Table:
    rows: list[list[Cell]] = [[c["name"], c["train"], c["test"]] for c in store["classes"]]
    return Table(
        "Images by class",
        "How many images each class has; a class with few is learned badly.",
        ["class", "train", "test"],
        rows,
        search=True,
    )


def _checks(store: Value) -> list[Block]:
    blocks: list[Block] = []
    rows: list[list[Cell]] = [
        [d["test"], d["train"], d["distance"], d["test_class"], d["train_class"]] for d in store["duplicates"]
    ]
    reads = (
        "Test images whose nearest train image is so near (cosine distance of the features) that it is probably the same; "
        "leave copies out with “tosca extract --duplicates drop”."
    )
    blocks.append(
        Table(
            "Nearest across train and test",
            reads if rows else "No test image has a nearly equal train image.",
            ["test image", "train image", "distance", "class", "class of the train image"],
            rows,
            search=bool(rows),
            wide=bool(rows),
        )
    )
    keyed = [d for d in store["duplicates"] if d.get("test_key")]
    if shown := [(d[f"{split}_key"], f"{split}: {d[split]}") for d in keyed for split in ("test", "train")]:
        reads = "Each test image, and beside it the train image."
        blocks.append(Gallery("Nearly equal images", reads, [("", shown)], paired=True))
    strange: list[list[Cell]] = [[s["split"], s["path"], s["why"]] for s in [*store["constant"], *store["skipped"]]]
    reads = (
        "Images that could not be read, or with the same features as many others (often empty or constant pictures)."
    )
    blocks.append(
        Table("Constant or broken images", reads if strange else "None was found.", ["split", "image", "why"], strange)
    )
    return blocks


def map_figure(title: str, found: Value, groups: Sequence[int], names: Sequence[str], kind: str) -> Figure:
    """The map `found` of `runs.store_facts.map_facts`.

    Arguments:
        groups: of each point; names: of the groups. kind: what a group is, in one word.
    """
    classes = found["classes"]
    points = []
    for (x, y, c, split, path, key), group in zip(found["points"], groups, strict=True):
        said = classes[c] if kind == "class" else f"{names[group]}, {classes[c]}"
        points.append(Point(x, y, f"{said}: {path}" + (" (test)" if split == "test" else ""), group, photo=key or ""))
    says = f"{len(points)} images of {len(names)} {plural(kind)}, by {found['how']}."
    reads = f"Each point is an image, coloured by {kind}; near ones look alike to the backbone. By {found['how']}."
    if len(names) > MOST_NAMED:
        reads += f" There are more {plural(kind)} than colours and shapes, so each stands for several."
    return scatter(title, reads, says, points, groups=names if len(names) <= MOST_NAMED else ())


def plural(kind: str) -> str:
    """The plural of `class`, `domain`, `task`."""
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"
