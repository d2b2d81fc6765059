"""Throws broken files at the readers of the feature store.

python tools/fuzz_store.py --reader npz --seconds 60          # manifest, plan, journal, npz, hdf5 or exported
python tools/fuzz_store.py --reader hdf5 --seconds 60 --seed 7

npz, manifest, plan and journal run in this process under atheris, which is guided by coverage (`--engine mutate` does
without). HDF5 files go the whole way through `import_files`, in whose child libhdf5 may crash as it likes; such inputs are
kept as crash-*. A reader may refuse in our vocabulary of errors. Anything else (another exception, a hang, a file outside
the target) stops the run, and the input is kept as finding-*.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import random
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz_inputs import exported_seeds, hdf5_seeds, mutate, npz_seeds

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "store")]
LONGEST = 20.0  # seconds that one input may take
READ_BYTES = 16 << 20  # most that is read of one file within this process


class Finding(Exception):
    """A reader did what it must not."""


class Target:
    """One reader. seeds: valid inputs. `attempt` says what became of an input; it raises `Finding` or a bug's exception."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.seeds: list[bytes] = []

    def attempt(self, data: bytes) -> str:
        """Gives the reader one input: `read`, or in a few words how it was refused."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends children."""


class Sealed(Target):
    """manifest.json or plan.json; what parses as JSON is tried a second time under a digest that is right."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, folder)
        from toy_store import build, open_writer

        from tosca_cache.store.manifest import load_manifest, load_plan

        self._load = load_manifest if name == "manifest" else load_plan
        if name == "manifest":
            self.seeds = [(build(folder / "toy", bad=[("train", 3)]).path / "manifest.json").read_bytes()]
        else:
            open_writer(folder / "toy").close()
            self.seeds = [(folder / "toy.partial" / "plan.json").read_bytes()]

    def attempt(self, data: bytes) -> str:
        found = self._one(data)
        try:
            content = json.loads(data)
        except (ValueError, RecursionError):
            return found
        return self._one(resealed(content)) if isinstance(content, dict) else found

    def _one(self, data: bytes) -> str:
        from tosca_cache.errors import StoreError

        path = self.folder / f"{self.name}.json"
        path.write_bytes(data)
        try:
            self._load(path).to_dict()
        except StoreError as error:
            return error.problem.partition("(")[2][:30]
        return "read"


class DoneList(Target):
    """done.jsonl; every line that parses as JSON is tried a second time under a checksum that is right."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, folder)
        from toy_store import open_writer, publish, toy_arrays

        arrays = {split: toy_arrays(split) for split in ("train", "test")}
        with open_writer(folder / "toy") as writer:
            for shard in writer.pending()[:3]:
                publish(writer, shard, arrays, [("train", 3)])
            self._layouts = writer.plan.layouts
        self._store = folder / "toy.partial"
        self.seeds = [(self._store / "done.jsonl").read_bytes()]

    def attempt(self, data: bytes) -> str:
        from tosca_cache.store.journal import finished_shards

        for text in (data, b"".join(rechecked(line) for line in data.splitlines(keepends=True))):
            (self._store / "done.jsonl").write_bytes(text)
            found = finished_shards(self._store, self._layouts)
            for shard, done in found.items():
                layout = self._layouts[shard.split]
                if type(shard.index) is not int or shard != layout.shard(shard.split, shard.index):
                    raise Finding(f"{shard} is no shard")
                if not all(shard.start <= row < shard.stop and type(why) is str for row, why in done.skipped.items()):
                    raise Finding(f"{done.skipped} are no skipped rows of {shard}")
                done.line()
        return f"{len(found)} shards"


class NpzInProcess(Target):
    """The parser of .npz files as the child runs it, where coverage can be seen."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, folder)
        self.seeds = npz_seeds()

    def attempt(self, data: bytes) -> str:
        from tosca_cache.untrusted.headers import Refused
        from tosca_cache.untrusted.npz import Npz

        begun = time.monotonic()
        try:
            source = Npz(io.BytesIO(data))
            for header in source.headers():
                type(header).from_dict(header.to_dict())
                if header.dtype and header.bytes <= READ_BYTES:
                    source.read(header.name, 0, header.rows)
        except Refused as error:
            return error.problem[:20]
        except (MemoryError, RecursionError) as error:
            raise Finding(repr(error)) from error
        except Exception as error:  # the child answers all of them in one sentence
            return type(error).__name__
        if time.monotonic() - begun > LONGEST:
            raise Finding("it takes for ever")
        return "read"


class Imported(Target):
    """The whole way of `tosca cache import`: a child parses, this process checks, and nothing may be left but a store."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, folder)
        from tosca_cache.store.exchange import files
        from tosca_cache.untrusted import Reader

        self._reader = Reader(patience=LONGEST / 4)
        self._files, self._open = files, files.open_untrusted
        self._root, self._path = folder / "root", folder / "input"
        self.seeds = {"npz-import": npz_seeds, "hdf5": hdf5_seeds}.get(name, lambda: exported_seeds(folder))()
        self.crashes: list[str] = []
        self.keep = False

    def attempt(self, data: bytes) -> str:
        import shutil
        from contextlib import contextmanager

        from tosca_cache.errors import ToscaError
        from tosca_cache.store.exchange import ImportRequest, Naming, import_files

        @contextmanager
        def lent(path: Path) -> Any:
            yield self._reader.open(path)

        self._path.write_bytes(data)
        before = {entry.name for entry in self.folder.iterdir()} | {"root"}
        request = ImportRequest(self._path, self._root, None if self.name == "exported" else Naming("fuzz"))
        begun, self._files.open_untrusted = time.monotonic(), lent
        try:
            path = import_files(request).store.path
            if path.parent != self._root:
                raise Finding(f"the store went to {path}")
            shutil.rmtree(path)
            outcome = "read"
        except ToscaError as error:
            outcome = error.problem[:60]
            if any(word in outcome for word in ("crashed", "busy", "gave up")):
                self.crashes.append(hashlib.sha256(data).hexdigest()[:10])
                if self.keep:
                    Path(f"crash-{self.crashes[-1]}").write_bytes(data)
        finally:
            self._files.open_untrusted = self._open
        left = [entry.name for entry in self._root.iterdir()] if self._root.exists() else []
        if left or {entry.name for entry in self.folder.iterdir()} - before:
            raise Finding(f"something was left: {left}")
        if time.monotonic() - begun > 2 * LONGEST:
            raise Finding("it takes for ever")
        return outcome

    def close(self) -> None:
        self._reader.close()


TARGETS: dict[str, Callable[[str, Path], Target]] = {
    "manifest": Sealed,
    "plan": Sealed,
    "journal": DoneList,
    "npz": NpzInProcess,
    "npz-import": Imported,
    "hdf5": Imported,
    "exported": Imported,
}


def resealed(content: dict[str, Any]) -> bytes:
    """A manifest or plan with this content under digests that are right, as far as it has any."""
    from tosca_cache.store.manifest import seal
    from tosca_cache.store.spec import canonical

    body = {key: value for key, value in content.items() if key not in ("format", "digest")}
    try:
        if "fingerprint" in body and "fingerprint_digest" in body:
            text = canonical(body["fingerprint"])
            body["fingerprint_digest"] = hashlib.sha256(text.encode()).hexdigest()
        return seal(body)
    except (ValueError, TypeError, RecursionError):
        return b"{}"


def rechecked(line: bytes) -> bytes:
    """A line of a done-list under a checksum that is right."""
    from tosca_cache.store.spec import canonical

    try:
        content = json.loads(line)
        body = content["shard"]
        return (canonical({"shard": body, "crc32": zlib.crc32(canonical(body).encode())}) + "\n").encode()
    except (ValueError, TypeError, KeyError, RecursionError):
        return line


def run_mutations(target: Target, seconds: float, seed: int) -> Counter[str]:
    """Mutated seeds until the time is over; the outcomes, counted. Keeps the input that led to a finding."""
    chance, outcomes, end = random.Random(seed), Counter[str](), time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutate(chance.choice(target.seeds), chance)
        try:
            outcomes[target.attempt(data)] += 1
        except Exception:
            kept = Path(f"finding-{target.name}-{hashlib.sha256(data).hexdigest()[:10]}")
            kept.write_bytes(data)
            print(f"kept: {kept}", file=sys.stderr)
            raise
    return outcomes


def run_atheris(name: str, folder: Path, seconds: int, seed: int) -> None:
    """Inputs that atheris finds by coverage; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["tosca_cache.store", "tosca_cache.untrusted", "zipfile", "numpy.lib"]):
        target = TARGETS[name](name, folder)
        target.attempt(target.seeds[0])
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(data)
    options = [f"-max_total_time={seconds}", f"-seed={seed}", f"-timeout={LONGEST:.0f}", "-max_len=65536"]
    options += ["-rss_limit_mb=3000", "-verbosity=1", f"-artifact_prefix=finding-{name}-"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: target.attempt(bytes(data)) and None)
    atheris.Fuzz()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", choices=sorted(TARGETS), required=True)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=("atheris", "mutate"), help="default: atheris where it can guide")
    given = parser.parse_args()
    alone = TARGETS[given.reader] is Imported
    engine = given.engine or ("mutate" if alone else "atheris")
    with tempfile.TemporaryDirectory() as folder:
        if engine == "atheris":
            run_atheris(given.reader, Path(folder), given.seconds, given.seed)
            return
        target = TARGETS[given.reader](given.reader, Path(folder))
        if isinstance(target, Imported):
            target.keep = True
        try:
            outcomes = run_mutations(target, given.seconds, given.seed)
        finally:
            target.close()
    print(f"{given.reader}: {sum(outcomes.values())} inputs, no finding")
    for outcome, count in outcomes.most_common(25):
        print(f"{count:8d}  {outcome}")
    if isinstance(target, Imported):
        print(f"{len(target.crashes):8d}  children that crashed or hung, on these inputs: {target.crashes}")


if __name__ == "__main__":
    main()
