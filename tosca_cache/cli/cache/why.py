"""`tosca cache why`: whether there is a store of what is asked for, and if not, what every store differs in."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import typer

from tosca_cache.cli.cache.common import AsJson
from tosca_cache.cli.extract import extract, request_of
from tosca_cache.terminal import echo, echo_json

if TYPE_CHECKING:
    from tosca_cache.extract.request import Comparison


def why(as_json: bool, **given: Any) -> None:
    """Say whether a store matches the options of `tosca extract`, or what differs; exit code 0 if one does, else 1.

    Nothing is computed; options that say only how to extract (workers, jobs, parts) play no part. An unfinished store
    matches if the same `tosca extract` would go on with it.
    """
    from tosca_cache.extract.request import command, compare_stores

    request = request_of(given)
    extraction, found = compare_stores(request)
    matching = [comparison for comparison in found if comparison.matches]
    if as_json:
        facts = {
            "matches": bool(matching),
            "path": str(extraction.path),
            "fingerprint": extraction.spec.to_dict(),
            "stores": [_as_json(comparison) for comparison in found],
            "command": command(request),
        }
        echo_json(facts)
    else:
        _print(found, matching, command(request))
    if not matching:
        raise typer.Exit(1)


def _as_json(comparison: Comparison) -> dict[str, Any]:
    differences = [{"field": f, "asked": asked, "store": has} for f, asked, has in comparison.differences]
    return vars(comparison) | {
        "path": str(comparison.path),
        "matches": comparison.matches,
        "differences": differences,
    }


def _print(found: list[Comparison], matching: list[Comparison], command: str) -> None:
    from tosca_cache.store.spec import canonical

    for comparison in matching:
        echo(f"matches: {comparison.path}")
        if comparison.state == "unfinished":
            echo(f"    it is unfinished; this goes on with it: {command}")
    if matching:
        return
    echo("no store matches" + (", nearest first:" if found else ": there are none in this root"))
    for comparison in found:
        state = "" if comparison.state == "finished" else f" ({comparison.state})"
        echo(f"  {comparison.path}{state}" + (f": {comparison.problem}" if comparison.problem else ""))
        for field, asked, has in comparison.differences:
            echo(f"    {field}: asked for {canonical(asked)}, it has {canonical(has)}")
    echo(f"make it: {command}")


def _with_the_options_of_extract() -> None:
    """Gives the verb the options of `tosca extract`, and its own: Typer reads both of what is set here."""
    signature = inspect.signature(extract, eval_str=True)
    own = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson)
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values()]
    setattr(why, "__signature__", signature.replace(parameters=[*parameters, own]))  # noqa: B010 functions have no such field
    why.__annotations__ = {p.name: p.annotation for p in [*parameters, own]} | {"return": None}


_with_the_options_of_extract()
