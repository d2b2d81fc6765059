"""Every step by which a process changes the files below a folder, seen before and after it happens.

    with watched(root, observer):
        ...            # observer.before(step) and observer.after(step) around each

A step is one call that changes the disk, or waits for it: mkdir, create, write, truncate, sync, rename, link, unlink,
rmdir. Calls that would change nothing (a folder that is there, a file that is not) are no steps. Linux only: /proc says
what is open under a descriptor.
"""

import io
import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock


@dataclass(frozen=True)
class Step:
    """kind, path relative to the root, and what else there is to know: (target,), (offset, data) or (length,)."""

    kind: str
    path: str
    more: tuple = ()

    def __str__(self):
        more = [item if isinstance(item, str | int) else f"{len(item)} bytes" for item in self.more]
        return " ".join(map(str, (self.kind, self.path or ".", *more)))


class Observer:
    """What is told of steps; either method may raise, or never return."""

    def before(self, step):
        """The step is about to happen."""

    def after(self, step):
        """The step has happened."""


class Cut(BaseException):
    """The end of a process, but within this one. Not an `Exception`: nothing in the product may catch it and tidy up."""


class Fault(Observer):
    """Raises before every step for which `when(number, step)` holds; of no `when` before none. steps: begun so far."""

    def __init__(self, when=lambda number, step: False, error=lambda step: Cut()):
        self.steps, self.when, self.error = [], when, error

    def before(self, step):
        self.steps.append(step)
        if self.when(len(self.steps) - 1, step):
            raise self.error(step)


def cut(number):
    """A fault that ends the process before a step: whatever would follow does not happen."""
    return Fault(lambda n, step: n >= number)


def refusal(number, code):
    """A fault of the disk at one step; what follows happens."""
    return Fault(lambda n, step: n == number, lambda step: OSError(code, os.strerror(code), step.path))


def death(number):
    """A fault that kills this process before a step."""
    return Fault(lambda n, step: n == number, lambda step: os.kill(os.getpid(), signal.SIGKILL))


@contextmanager
def watched(root, observer):
    """Tells the observer of every step below a folder; fsync itself is left out, nothing here pulls a real plug."""
    watch = _Watch(os.path.realpath(root), observer)
    with mock.patch.multiple(os, **watch.replacements()), mock.patch.object(io, "open", watch.io_open):
        yield


class _Watch:
    def __init__(self, root, observer):
        self.root, self.observer, self.io = root, observer, io.open
        self.lock = threading.RLock()  # steps happen one after the other, also those of several threads

    def replacements(self):
        calls = {name: self.one(getattr(os, name), kind, there) for name, kind, there in ONE}
        calls |= {name: self.two(getattr(os, name), kind) for name, kind in TWO}
        return calls | {name: partial(getattr(self, name), getattr(os, name)) for name in OTHERS}

    def step(self, do, kind, path, *more):
        with self.lock:
            step = Step(kind, path, more)
            self.observer.before(step)
            found = do()
            self.observer.after(step)
            return found

    def inside(self, path, dir_fd=None):
        """The path relative to the root; None if it is outside."""
        if isinstance(path, int):
            path = str(Path(f"/proc/self/fd/{path}").readlink())
            if path.endswith(" (deleted)"):
                return None
        elif dir_fd is not None:
            path = Path(f"/proc/self/fd/{dir_fd}").readlink() / path
        path = str(Path(path).absolute())
        if path == self.root:
            return ""
        return path.removeprefix(f"{self.root}/") if path.startswith(f"{self.root}/") else None

    def there(self, path):
        return os.path.lexists(f"{self.root}/{path}")

    def one(self, real, kind, there):
        """A call with one path, which changes something if that is there, or if it is not."""

        def call(path, *arguments, dir_fd=None):
            name, do = self.inside(path, dir_fd), partial(real, path, *arguments, dir_fd=dir_fd)
            return do() if name is None or self.there(name) != there else self.step(do, kind, name)

        return call

    def two(self, real, kind):
        """A call with two paths."""

        def call(source, target, **keywords):
            self.step(partial(real, source, target), kind, self.inside(source), self.inside(target))

        return call

    def open(self, real, path, flags, mode=0o777, *, dir_fd=None):
        name, do = self.inside(path, dir_fd), partial(real, path, flags, mode, dir_fd=dir_fd)
        if name is None or not flags & (os.O_CREAT | os.O_TRUNC):
            return do()
        if not self.there(name):
            return self.step(do, "create", name)
        return self.step(do, "truncate", name, 0) if flags & os.O_TRUNC else do()

    def io_open(self, file, mode="r", buffering=-1, *arguments, **keywords):
        name = None if isinstance(file, int) or not set(mode) & set("wxa") else self.inside(file)
        if name is None:
            return self.io(file, mode, buffering, *arguments, **keywords)
        do = partial(_RawFile, self, file, mode.replace("b", "").replace("t", ""))
        if not self.there(name):
            raw = self.step(do, "create", name)
        else:
            raw = self.step(do, "truncate", name, 0) if "w" in mode else do()
        if buffering == 0:
            return raw
        return io.BufferedWriter(raw) if "b" in mode else io.TextIOWrapper(io.BufferedWriter(raw), **keywords)

    def pwrite(self, real, descriptor, data, offset):
        data = bytes(data)
        return self.step(lambda: real(descriptor, data, offset), "write", self.inside(descriptor), offset, data)

    def ftruncate(self, real, descriptor, length):
        if os.fstat(descriptor).st_size != length:
            self.step(lambda: real(descriptor, length), "truncate", self.inside(descriptor), length)

    def fsync(self, real, descriptor):
        name = self.inside(descriptor)
        if name is not None:
            self.step(lambda: None, "sync", name)


ONE = (("mkdir", "mkdir", False), ("unlink", "unlink", True), ("rmdir", "rmdir", True))
TWO = (("rename", "rename"), ("replace", "rename"), ("link", "link"))
OTHERS = ("open", "pwrite", "ftruncate", "fsync")


class _RawFile(io.FileIO):
    """An unbuffered file whose writes are steps."""

    def __init__(self, watch, file, mode):
        super().__init__(file, mode)
        self.watch = watch

    def write(self, data):
        name, data = self.watch.inside(self.fileno()), bytes(data)
        return self.watch.step(lambda: super(_RawFile, self).write(data), "write", name, self.tell(), data)
