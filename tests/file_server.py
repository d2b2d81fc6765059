"""A server of files on 127.0.0.1 that can go on at a byte, and can be told to be as bad as servers are."""

import hashlib
import re
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FileServer:
    """files: path -> bytes. requests: (path, Range header) of each GET.

    cut_after: bytes after which each of the next `cuts` answers breaks off. ranges: whether it goes on at a byte.
    says: what Content-Length says instead of the truth. status: that answers everything.
    """

    def __init__(self, files):
        self.files, self.requests = files, []
        self.cut_after, self.cuts, self.ranges, self.says, self.status = None, 0, True, None, None
        self.address = None

    def answer(self, handler, *, head):
        path, asked = handler.path.lstrip("/"), handler.headers.get("Range")
        if not head:
            self.requests.append((path, asked))
        data = self.files.get(path)
        if self.status or data is None:
            handler.send_error(self.status or 404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.ranges else 0
        if start and start >= len(data):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(self.says or len(data) - start))
        handler.send_header("Content-Type", "application/octet-stream")
        handler.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        handler.send_header("X-Repo-Commit", COMMIT)  # as a repository of models does
        handler.end_headers()
        if head:
            return
        body = data[start:]
        if self.cuts:
            self.cuts -= 1
            body = body[: self.cut_after]
        with suppress(ConnectionError):  # who has enough hangs up
            handler.wfile.write(body)
        handler.close_connection = True


@contextmanager
def serving(files):
    """A running server; its `address` has no slash at its end."""
    server = FileServer(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.answer(self, head=False)

        def do_HEAD(self):
            server.answer(self, head=True)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        server.address = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            running.shutdown()
            thread.join()
