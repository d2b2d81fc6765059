"""What is searched: axes, their points, and the samplers that choose among them."""

from tosca_cache.sweep.space.spaces import (
    MOST_POINTS,
    Point,
    Space,
    fixed,
    grid,
    idle,
    make_space,
    merge,
    parse_set,
    read_space,
    size,
)

__all__ = [
    "MOST_POINTS",
    "Point",
    "Space",
    "fixed",
    "grid",
    "idle",
    "make_space",
    "merge",
    "parse_set",
    "read_space",
    "size",
]
