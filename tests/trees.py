"""What lies below a folder, to compare bit by bit, and how it is harmed."""

from pathlib import Path


def everything(path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(file.relative_to(path)): file.read_bytes() for file in Path(path).rglob("*") if file.is_file()}


def tree(path) -> dict[str, bytes]:
    """Every file of a store with its bytes, but for the one that says when it was made."""
    return {name: data for name, data in everything(path).items() if Path(name).name != "provenance.json"}


def damage(path, *names) -> None:
    """Flips a bit in the middle of each file."""
    for name in names:
        data = bytearray((path / name).read_bytes())
        data[len(data) // 3] ^= 16
        (path / name).write_bytes(data)
