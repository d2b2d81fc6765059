"""The part of a store: what it holds, counts by class, a map of its features, near duplicates, and suspicious rows."""

from __future__ import annotations

from collections.abc import Sequence

from tosca_cache.report.pages.blocks import Block, Cell, Figure, Gallery, Part, Table, Value, origin_facts
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
    made = store["provenance"]
    more: list[tuple[str, Cell]] = [
        (name, ", ".join(f"{k} {v}" for k, v in found.items() if v is not None))
        for name, found in (("source", made.get("source") or {}), ("transform", store["transform"]))
    ]
    more.append(("relative error against float32", made.get("relative_error_against_float32", "not measured")))
    found, counts = store["map"], [[c["name"], c["train"], c["test"]] for c in store["classes"]]
    groups = [point[2] for point in found["points"]]
    shown = [map_figure("Map of the features", found, groups, found["classes"], "class")] if groups else []
    reads_counts = "How many images each class has; a class with few is learned badly."
    sections: list[tuple[str, list[Block]]] = [
        ("Store", [*shown, Table("Images by class", reads_counts, ["class", "train", "test"], counts, search=True)]),
        ("Checks", _checks(store)),
        ("Provenance", [origin_facts(made, more)]),
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
    return [*said, *store["warnings"]]


def _checks(store: Value) -> list[Block]:
    """Near duplicates with their photos, and constant or broken images."""
    twins = store["duplicates"]
    near = [[d[key] for key in ("test", "train", "distance", "test_class", "train_class")] for d in twins]
    reads = (
        "Test images whose nearest train image is so near (cosine distance of the features) that it is probably the same; "
        "leave copies out with “tosca extract --duplicates drop”."
    )
    columns = ["test image", "train image", "distance", "class", "class of the train image"]
    said = reads if near else "No test image has a nearly equal train image."
    some = bool(near)
    blocks: list[Block] = [Table("Nearest across train and test", said, columns, near, search=some, wide=some)]
    if shown := [(d[f"{s}_key"], f"{s}: {d[s]}") for d in twins if d.get("test_key") for s in ("test", "train")]:
        reads = "Each test image, and beside it the train image."
        blocks.append(Gallery("Nearly equal images", reads, [("", shown)], paired=True))
    strange = [[s["split"], s["path"], s["why"]] for s in [*store["constant"], *store["skipped"]]]
    reads = "Images that could not be read, or with the same features as many others (often empty or constant)."
    said = reads if strange else "None was found."
    return [*blocks, Table("Constant or broken images", said, ["split", "image", "why"], strange)]


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
    reads = f"Each point is an image, coloured by {kind}; near ones look alike to the backbone. By {found['how']}."
    if len(names) > MOST_NAMED:
        reads += " There are more of them than colours and shapes, so each stands for several."
    return scatter(title, reads, points, groups=names if len(names) <= MOST_NAMED else ())
