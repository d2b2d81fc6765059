"""Photos of all requests through the backbone together: whoever comes to the front takes along what waits behind."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tosca_cache.errors import ToscaError, short_of_memory
from tosca_cache.model.encoder import Encoded
from tosca_cache.model.serve.guard import refusal

AT_ONCE = 32  # photos of one batch; a request that has more is a batch of its own
_SMOOTHING = 0.2  # weight of the last batch in the seconds that a photo takes
Photos = Sequence[bytes]
Job = tuple[Photos, "asyncio.Future[Encoded]"]


class Batcher:
    """Takes photos through an encoder in batches, one after the other, in a thread of its own.

    encode: bytes of files -> their features. most: photos that may wait. waiting: those that are waited for, the batch
    that is being computed included.
    """

    def __init__(self, encode: Callable[[Photos], Encoded], most: int) -> None:
        self._encode, self._most, self.waiting = encode, most, 0
        self._jobs: deque[Job] = deque()
        self._front, self._seconds = asyncio.Lock(), 0.05
        self._thread = ThreadPoolExecutor(1, "batches")

    async def encoded(self, photos: Photos) -> Encoded:
        """The features of photos; refused with 503 if too many photos wait already."""
        if self.waiting and self.waiting + len(photos) > self._most:
            seconds = str(max(1, round(self.waiting * self._seconds)))
            remedy = f"try again in {seconds} s"
            raise refusal(503, "too many photos wait already", "photos", remedy, {"Retry-After": seconds})
        done = asyncio.get_running_loop().create_future()
        self._jobs.append((photos, done))
        self.waiting += len(photos)
        try:
            async with self._front:
                while not done.done():
                    await self._take()
            return await done
        finally:
            self.waiting -= len(photos)
            done.cancel()  # of a request that was given up: nobody waits for it

    def _next(self) -> list[Job]:
        """The oldest jobs that make a batch."""
        taken = [self._jobs.popleft()]
        while self._jobs and sum(len(photos) for photos, _ in (*taken, self._jobs[0])) <= AT_ONCE:
            taken.append(self._jobs.popleft())
        return taken

    async def _take(self) -> None:
        """Computes the next batch; if whoever does that is given up, its jobs wait for the next one at the front."""
        jobs = self._next()
        try:
            await self._compute(jobs)
        except asyncio.CancelledError:
            self._jobs.extendleft(job for job in reversed(jobs) if not job[1].done())
            raise

    async def _compute(self, jobs: list[Job]) -> None:
        """Computes jobs together; if that fails, each by itself, so that none fails for another one's photos."""
        photos, begun = [photo for some, _ in jobs for photo in some], time.perf_counter()
        try:
            encoded = await asyncio.get_running_loop().run_in_executor(self._thread, self._encode, photos)
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    await self._compute([job])
                return
            if short_of_memory(error):
                remedy = "send fewer or smaller photos at a time"
                error = ToscaError("memory is not enough for these photos", where="photos", remedy=remedy)
            if not jobs[0][1].done():
                jobs[0][1].set_exception(error)
            return
        self._seconds += _SMOOTHING * ((time.perf_counter() - begun) / len(photos) - self._seconds)
        start = 0
        for some, done in jobs:
            stop = start + len(some)
            errors = {place - start: why for place, why in encoded.errors.items() if start <= place < stop}
            if not done.done():
                done.set_result(Encoded(encoded.features[start:stop], errors))
            start = stop
