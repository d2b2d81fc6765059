"""The child: opens the files whose descriptors it is sent, and answers what is asked about them.

A message is a length (4 bytes), JSON of that length, and as many bytes behind it as the JSON says under `bytes`.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import zipfile
import zlib
from typing import Any

import numpy as np

from tosca_cache.untrusted.hdf import Hdf
from tosca_cache.untrusted.headers import TEXT_BYTES, Refused
from tosca_cache.untrusted.npz import Npz

MEMORY = 768 << 20  # bytes beyond what the interpreter and its libraries have
MAX_MESSAGE = 64 << 20
_HDF5 = b"\x89HDF\r\n\x1a\n"
_SPARE_FILES = 8


def main(descriptor: int) -> None:
    """Answers until the other side hangs up."""
    connection = socket.socket(fileno=descriptor)
    _warm_up()
    _limit()
    source: Npz | Hdf | None = None
    while True:
        message, files = receive(connection)
        if message is None:
            return
        try:
            if message["do"] == "open":
                if source is not None:
                    source.close()
                source = _open(files[0])
                send(connection, {"arrays": [h.to_dict() for h in source.headers()], "attributes": source.attributes()})
            else:
                assert source is not None
                send_values(connection, source.read(message["name"], message["start"], message["stop"]))
        except Refused as error:
            send(connection, {"refused": error.problem, "remedy": error.remedy})
        except MemoryError:
            send(connection, {"refused": "Reading this file takes more memory than it is given."})
        except (zlib.error, zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
            send(connection, {"refused": f"This file is damaged ({_short(error)})."})
        except Exception as error:  # whatever a broken file makes of the libraries
            send(connection, {"refused": f"This file is damaged ({type(error).__name__}: {_short(error)})."})


def send(connection: socket.socket, content: dict[str, Any], data: bytes | memoryview = b"", files: Any = ()) -> None:
    """Sends one message; `files` are descriptors that the other side gets copies of."""
    text = json.dumps(content).encode()
    socket.send_fds(connection, [len(text).to_bytes(4, "little")], list(files))
    connection.sendall(text)
    connection.sendall(data)


def receive(connection: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """One message without data, and the descriptors that came with it; None when the other side has hung up."""
    start, files, _, _ = socket.recv_fds(connection, 4, 1)
    if not start:
        return None, []
    while len(start) < 4:
        start += connection.recv(4 - len(start))
    length = int.from_bytes(start, "little")
    text = b""
    while len(text) < length:
        text += connection.recv(length - len(text))
    return json.loads(text), list(files)


def send_values(connection: socket.socket, values: Any) -> None:
    """Sends numbers as their bytes, texts as a JSON list."""
    if isinstance(values, list):
        if sum(map(len, values)) > MAX_MESSAGE or any(len(text) > TEXT_BYTES for text in values):
            raise Refused("The texts of an array are absurdly long.")
        data = json.dumps(values).encode()
        send(connection, {"bytes": len(data)}, data)
        return
    array = np.ascontiguousarray(values)
    send(connection, {"bytes": array.nbytes}, array.reshape(-1).view(np.uint8).data)


def _open(descriptor: int) -> Npz | Hdf:
    """The reader for what the first bytes say; nothing else can be opened afterwards."""
    _allow_files(_SPARE_FILES)
    try:
        file = os.fdopen(descriptor, "rb")
        begin = file.read(8)
        if begin == _HDF5:
            return Hdf(f"/dev/fd/{descriptor}")
        if begin[:2] == b"PK":
            return Npz(file)
        raise Refused(
            "This is neither an .npz nor an HDF5 file.",
            "Give a file that numpy.savez or h5py wrote; not .npy, .pt, .pkl, .mat or .csv.",
        )
    finally:
        _allow_files(0)


def _limit() -> None:
    """No more memory than the libraries have taken and MEMORY, no writing, no core dump."""
    with open("/proc/self/statm") if sys.platform == "linux" else open(os.devnull) as file:  # noqa: PTH123
        pages = (file.read().split() or ["0"])[0]
    if pages != "0":
        most = int(pages) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _allow_files(0)


def _allow_files(more: int) -> None:
    """How many files may be opened besides those that are open: a crafted HDF5 file can name others."""
    highest = max(int(name) for name in os.listdir("/dev/fd"))  # noqa: PTH208
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(highest + 1 + more, hard), hard))


def _warm_up() -> None:
    """Loads what libraries load late, while files may still be opened."""
    "ä".encode("idna")
    np.lib.format.read_array_header_1_0  # noqa: B018
    np.zeros(1, "<f4").astype("<f2")


def _short(error: BaseException) -> str:
    return str(error).replace("\n", " ")[:200]
