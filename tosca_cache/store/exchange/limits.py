"""How much a file may claim to hold."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.untrusted import Header, UntrustedFile

FLOOR = 256 << 20
RATIO = 32  # bytes for one of the file: what honest compression of features reaches; a bomb has a thousand
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def parse_bytes(text: str) -> int:
    """Reads a size such as 500MB, 20G or 4000000000 (powers of 1000); raises `UsageError` for anything else."""
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)\s*([kmgt]?)b?", text.strip().lower())
    if found is None:
        raise UsageError(f"{text!r} is no size", where="--max-bytes", remedy="give for example 500MB or 20GB")
    return int(float(found[1]) * _UNITS[found[2]])


def check_promises(file: UntrustedFile, used: Iterable[Header], most: int | None) -> None:
    """Raises `StoreError` if the arrays that are to be read claim more bytes than a file of this size can sensibly hold.

    most: bytes that they may claim; None for 256 MiB, or 32 times the file's size if that is more.
    """
    headers = list(used)
    claimed, allowed = sum(header.bytes for header in headers), most
    if allowed is None:
        allowed = max(FLOOR, RATIO * file.size)
    if claimed > allowed:
        largest = max(headers, key=lambda header: header.bytes)
        raise StoreError(
            f"The file has {file.size:,} bytes but claims to hold {claimed:,}, most of them in array "
            f"{largest.describe()}; {allowed:,} are allowed.",
            where=file.path,
            remedy=f"If you trust it, allow it: --max-bytes {claimed}.",
        )
