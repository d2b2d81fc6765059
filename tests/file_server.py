"""A server of files on 127.0.0.1 that can go on at a byte, and can be told to be as bad as servers are."""

import hashlib
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace


@contextmanager
def serving(files):
    """A running server of path -> bytes; its fields may be changed meanwhile.

    address: without a slash at its end. requests: (path, Range header) of each GET. cut_after: bytes after which each of
    the next `cuts` answers breaks off. ranges: whether it goes on at a byte. says: what Content-Length says instead of
    the truth. status: that answers everything.
    """
    server = SimpleNamespace(files=files, requests=[], cut_after=None, cuts=0, ranges=True, says=None, status=None)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path, asked = self.path.lstrip("/"), self.headers.get("Range")
            if self.command == "GET":
                server.requests.append((path, asked))
            data = server.files.get(path)
            if server.status or data is None:
                return self.send_error(server.status or 404)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
            if start and start >= len(data):
                return self.send_error(416)
            self.send_response(206 if start else 200)
            headers = {"Content-Length": server.says or len(data) - start, "Content-Type": "application/octet-stream"}
            headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
            headers["X-Repo-Commit"] = "0123456789abcdef" * 2 + "01234567"  # as a repository of models has it
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            for name, value in headers.items():
                self.send_header(name, str(value))
            self.end_headers()
            stop = None if not server.cuts else start + server.cut_after
            if self.command == "GET":
                server.cuts -= bool(server.cuts)
                with suppress(ConnectionError):  # who has enough hangs up
                    self.wfile.write(data[start:stop])
                self.close_connection = True

        def do_HEAD(self):
            self.do_GET()

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
