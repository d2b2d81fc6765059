"""Photos of all requests through the backbone together: one thread takes whatever waits whenever it is free."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from tosca_cache.errors import ToscaError, short_of_memory
from tosca_cache.model.encoder import Encoded

AT_ONCE = 32  # photos of one batch; a request that has more is a batch of its own
_SMOOTHING = 0.2  # weight of the last batch in the seconds that a photo takes


class Busy(Exception):
    """The queue is full; `seconds` until there should be room."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(f"try again in {seconds} s")


@dataclass(frozen=True)
class _Job:
    photos: Sequence[bytes]
    done: Future[Encoded] = field(default_factory=Future)


class Batcher:
    """Takes photos through an encoder in batches.

    Arguments:
        encode: bytes of files -> their features. most_waiting: photos that may wait.
        observe: is told of every batch: photos, seconds.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[bytes]], Encoded],
        most_waiting: int,
        observe: Callable[[int, float], None] = lambda photos, seconds: None,
    ) -> None:
        self._encode, self._most, self._observe = encode, most_waiting, observe
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._waiting, self._seconds, self._closed = 0, 0.05, False
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Photos that are waited for, those of the batch that is being computed included."""
        return self._waiting

    def submit(self, photos: Sequence[bytes]) -> Future[Encoded]:
        """The features of photos, once they are computed; raises `Busy` if too many photos wait already."""
        job = _Job(photos)
        with self._changed:
            if self._closed or (self._waiting and self._waiting + len(photos) > self._most):
                raise Busy(max(1, round(self._waiting * self._seconds)))
            self._waiting += len(photos)
            self._jobs.append(job)
            self._changed.notify()
        return job.done

    def close(self) -> None:
        """Lets what waits be computed, and ends."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while jobs := self._next():
            asked = [job for job in jobs if job.done.set_running_or_notify_cancel()]
            try:
                self._compute(asked)
            finally:
                with self._changed:
                    self._waiting -= sum(len(job.photos) for job in jobs)

    def _next(self) -> list[_Job]:
        """Jobs of the next batch, the oldest first; none once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            taken: list[_Job] = []
            while self._jobs and (not taken or sum(len(j.photos) for j in (*taken, self._jobs[0])) <= AT_ONCE):
                taken.append(self._jobs.popleft())
            return taken

    def _compute(self, jobs: Sequence[_Job]) -> None:
        """Computes jobs together; if that fails, each by itself, so that none fails for another one's photos."""
        photos, begun = [photo for job in jobs for photo in job.photos], time.perf_counter()
        if not photos:
            return
        try:
            encoded = self._encode(photos)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].done.set_exception(_understood(error))
            else:
                for job in jobs:
                    self._compute([job])
            return
        seconds = time.perf_counter() - begun
        self._seconds += _SMOOTHING * (seconds / len(photos) - self._seconds)
        self._observe(len(photos), seconds)
        start = 0
        for job in jobs:
            stop = start + len(job.photos)
            errors = {place - start: why for place, why in encoded.errors.items() if start <= place < stop}
            job.done.set_result(Encoded(encoded.features[start:stop], errors))
            start = stop


def _understood(error: Exception) -> Exception:
    if short_of_memory(error):
        return ToscaError(
            "memory is not enough for these photos", where="photos", remedy="send fewer or smaller photos at a time"
        )
    return error
