"""A disk in memory that loses, when its power goes, whatever nobody has waited for; after POSIX, at its least helpful.

What may be left of a folder below the root, after any step of a recorded run:

- A folder's entries are those at its last sync, and of every change since then each may be there or not: a new name, a
  removed name, a rename (one change, both of its names).
- A file's bytes are those at its last sync. If it was written since then they may also be the written ones, in part or
  whole, or zeros of that length, or nothing. A sync of a file says nothing about its name, nor one of a folder about the
  bytes of the files in it, or about the folder's own name.
"""

import random
import shutil
from dataclasses import dataclass, field

from steps import Observer

MODES = ("old", "empty", "zeros", "new")  # the regular ways to lose; besides them there are seeds of random ones


class Trace(Observer):
    """The steps of a run, and what the run has promised in between: {number of steps until then: promise}."""

    def __init__(self):
        self.steps = []
        self.promises = {0: 0}

    def after(self, step):
        self.steps.append(step)

    def promise(self, what):
        """From here on no loss of power may take this back."""
        self.promises[len(self.steps)] = what

    def promised(self, count):
        """What was promised last within the first `count` steps."""
        return self.promises[max(number for number in self.promises if number <= count)]


@dataclass(eq=False)
class File:
    durable: bytes = b""
    now: bytes = b""

    def possible(self, mode):
        """The bytes after a loss, and whether there was something to lose."""
        if self.now == self.durable or mode == "new":
            return self.now
        kept = _common(self.durable, self.now)
        if mode == "zeros":
            return self.now[:kept] + bytes(len(self.now) - kept)
        if mode in ("old", "empty"):
            return self.durable if mode == "old" else self.now[:kept]
        torn = mode.randint(kept, len(self.now))
        return mode.choice(
            [self.durable, self.now, self.now[:torn], self.now[:torn] + bytes(len(self.now) - torn), self.now[:kept]]
        )


@dataclass(eq=False)
class Folder:
    durable: dict = field(default_factory=dict)
    changes: list = field(default_factory=list)

    @property
    def now(self):
        return _changed(self.durable, self.changes)

    def possible(self, mode):
        """The entries after a loss."""
        if mode == "old":
            return self.durable
        if mode in ("empty", "zeros", "new"):
            return self.now
        return _changed(self.durable, [change for change in self.changes if mode.random() < 0.5])


class Disk:
    """The disk as a run's steps change it; begins empty."""

    def __init__(self, steps=()):
        self.root = Folder()
        for step in steps:
            self.apply(step)

    def apply(self, step):
        """One step happens."""
        getattr(self, f"_{step.kind}")(step.path, *step.more)

    def materialise(self, target, mode):
        """Writes what may be left after a loss of power now; mode: one of `MODES`, or a seed."""
        shutil.rmtree(target, ignore_errors=True)
        _write(self.root, target, random.Random(mode) if isinstance(mode, int) else mode)

    def _find(self, path):
        node = self.root
        for name in path.split("/") if path else ():
            node = node.now[name]
        return node

    def _parent(self, path):
        folder, _, name = path.rpartition("/")
        return self._find(folder), name

    def _mkdir(self, path):
        parent, name = self._parent(path)
        parent.changes.append({name: Folder()})

    def _create(self, path):
        parent, name = self._parent(path)
        parent.changes.append({name: File()})

    def _write(self, path, offset, data):
        file = self._find(path)
        file.now = file.now[:offset].ljust(offset, b"\0") + data + file.now[offset + len(data) :]

    def _truncate(self, path, length):
        file = self._find(path)
        file.now = file.now[:length].ljust(length, b"\0")

    def _sync(self, path):
        node = self._find(path)
        if isinstance(node, Folder):
            node.durable, node.changes = node.now, []
        else:
            node.durable = node.now

    def _rename(self, source, target):
        (one, old), (other, new) = self._parent(source), self._parent(target)
        node = one.now[old]
        if one is other:
            one.changes.append({old: None, new: node})
        else:
            one.changes.append({old: None})
            other.changes.append({new: node})

    def _link(self, source, target):
        node = self._find(source)
        parent, name = self._parent(target)
        parent.changes.append({name: node})

    def _unlink(self, path):
        parent, name = self._parent(path)
        parent.changes.append({name: None})

    _rmdir = _unlink


def _common(one, other):
    """Length of the common beginning."""
    length = min(len(one), len(other))
    return next((k for k in range(length) if one[k] != other[k]), length)


def _changed(entries, changes):
    entries = dict(entries)
    for change in changes:
        for name, node in change.items():
            if node is None:
                entries.pop(name, None)
            else:
                entries[name] = node
    return entries


def _write(folder, target, mode):
    target.mkdir()
    for name, node in sorted(folder.possible(mode).items()):
        if isinstance(node, Folder):
            _write(node, target / name, mode)
        else:
            (target / name).write_bytes(node.possible(mode))
