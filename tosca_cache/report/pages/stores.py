"""The part of a store: what it holds, counts by class, a map of its features, near duplicates, and suspicious rows."""

from __future__ import annotations

from tosca_cache.report.pages.blocks import Block, Cell, Facts, Figure, Gallery, Part, Photo, Section, Table, Value
from tosca_cache.report.pages.charts import COLOURS, Point, scatter

MOST_NAMED = 8  # classes with a colour of their own


def store_part(store: Value) -> Part:
    """The part of a store; see `store.report_facts.store_facts` for what it is given."""
    rows = store["rows"]
    numbers = [
        ("train images, test images", f"{rows['train']:,}, {rows['test']:,}"),
        ("classes", f"{len(store['classes']):,}"),
        ("test images with an equal or nearly equal train image", f"{len(store['duplicates']):,}"),
    ]
    about: list[tuple[str, Cell]] = [(str(k), str(v)) for k, v in store["about"].items()]
    sections = [
        Section("Store", [*_map(store), _counts(store)]),
        Section("Checks", _checks(store)),
        Section(
            "Provenance",
            [
                Facts(
                    "Where the numbers come from", [(str(k), str(v)) for k, v in store["provenance"].items()], wide=True
                )
            ],
        ),
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


def _map(store: Value) -> list[Block]:
    found = store["map"]
    if not found["points"]:
        return []
    names = [entry["name"] for entry in store["classes"]]
    counted = sorted(range(len(names)), key=lambda c: -store["classes"][c]["train"])
    every = len(names) <= MOST_NAMED
    colours = (
        {c: n for n, c in enumerate(counted[:MOST_NAMED])} if every else {c: c % COLOURS for c in range(len(names))}
    )
    points = [
        Point(x, y, f"{names[c]}: {path}" + (" (test)" if split == "test" else ""), colours[c], photo=key or "")
        for x, y, c, split, path, key in found["points"]
    ]
    says = f"{len(points)} images of {len(names)} classes, by {found['how']}."
    colour_words = "coloured by class" if every else f"coloured by class ({COLOURS} colours in turn)"
    reads = (
        f"Each point is an image, {colour_words}; those close together look alike to the backbone. By {found['how']}."
    )
    if every:
        reads += " " + ", ".join(f"colour {n + 1} {names[c]}" for c, n in colours.items()) + "."
    chart = scatter("Map of the features", says, points, "", "", bare=True)
    return [Figure("Map of the features", reads, chart)]


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
        "leave copies out with `tosca extract --duplicates drop`."
    )
    blocks.append(
        Table(
            "Nearest across train and test",
            reads if rows else "No test image has a nearly equal train image.",
            ["test image", "train image", "distance", "class", "class of the train image"],
            rows,
            search=bool(rows),
        )
    )
    groups = [
        ("", [Photo(d[k], f"{d[s]} ({s})") for k, s in (("test_key", "test"), ("train_key", "train"))])
        for d in store["duplicates"]
        if d.get("test_key")
    ]
    if groups:
        blocks.append(Gallery("Nearly equal images", "Each test image and the train image beside it.", groups))
    strange: list[list[Cell]] = [[s["split"], s["path"], s["why"]] for s in [*store["constant"], *store["skipped"]]]
    reads = (
        "Images that could not be read, or with the same features as many others (often empty or constant pictures)."
    )
    blocks.append(
        Table("Constant or broken images", reads if strange else "None was found.", ["split", "image", "why"], strange)
    )
    return blocks
