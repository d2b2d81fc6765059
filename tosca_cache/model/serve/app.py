"""The HTTP interface of a model, and its page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, File, Form, Query, Request, Response, UploadFile
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from tosca_cache.errors import ImageError, ModelError, StoreError, ToscaError, UsageError
from tosca_cache.model.answers import Answer, answers
from tosca_cache.model.encoder import Encoded
from tosca_cache.model.serve import schemas
from tosca_cache.model.serve.batching import Batcher, Busy
from tosca_cache.model.serve.guard import Guard, Limits, problem_body, refusal
from tosca_cache.model.serve.metrics import CONTENT_TYPE, Measured, Metrics
from tosca_cache.model.serve.nearest import Neighbour
from tosca_cache.model.serve.served import Served, UnknownClass

STATIC = Path(__file__).parent / "static"
MOST_TOP, MOST_NEAREST = 1000, 20
Photos = Annotated[list[UploadFile], File(description="One or many image files.")]


@dataclass(frozen=True)
class Server:
    """What the endpoints share."""

    served: Served
    limits: Limits
    read_only: bool
    batcher: Batcher
    metrics: Metrics


def create_app(served: Served, limits: Limits, *, token: str | None = None, read_only: bool = False) -> FastAPI:
    """The application. token: what clients have to send; without one only this machine is answered."""
    metrics = Metrics(lambda: batcher.waiting, lambda: len(served.current().model.class_names))
    batcher = Batcher(served.encoder.encode, limits.waiting, metrics.batch)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(batcher.close)

    app = FastAPI(
        title="tosca serve",
        description="A classifier of photos: ask it, teach it, undo.",
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.server = Server(served, limits, read_only, batcher, metrics)
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ToscaError, _tosca_problem)
    app.add_exception_handler(Busy, _busy)
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(Guard, limits=limits, token=token)
    app.add_middleware(Measured, metrics=metrics)
    return app


def _server(request: Request) -> Server:
    found: Server = request.app.state.server
    return found


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem, "description": text}
    for status, text in {
        400: "the body cannot be read",
        401: "the token is missing or wrong",
        403: "not from here, or read-only",
        404: "there is nothing called so",
        408: "the request does not go on",
        409: "the model is being changed by another process, or cannot be changed so",
        413: "too many bytes or photos",
        422: "a value cannot be used",
        503: "too much waits already: see Retry-After",
    }.items()
}
router = APIRouter(responses=_PROBLEMS)


@router.post("/predict", summary="Ask about photos")
async def predict(
    request: Request,
    photos: Photos,
    top: Annotated[int, Query(ge=1, le=MOST_TOP, description="How many classes to name.")] = 5,
    threshold: Annotated[float, Query(ge=0, le=1, description="Answer unknown below this probability.")] = 0.0,
    nearest: Annotated[int, Query(ge=0, le=MOST_NEAREST, description="How many training photos to name.")] = 0,
) -> schemas.PredictOut:
    """The likeliest classes of one or many photos, with calibrated probabilities.

    A photo that cannot be read has an error, and costs no other.
    """
    server, names = _server(request), [photo.filename or "" for photo in photos]
    _, encoded = await _encode(server, photos)

    def answer() -> list[schemas.AnswerOut]:
        """What the model that is served at this moment says of each photo."""
        version = server.served.current()
        found = answers(version.model, names, encoded.features, top=top, threshold=threshold)
        near = version.nearest.to(encoded.features, nearest)
        return [
            _answer(one, beside) if (error := encoded.errors.get(place)) is None else _unread(names[place], error)
            for place, (one, beside) in enumerate(zip(found, near, strict=True))
        ]

    done = await run_in_threadpool(answer)
    unread = len(encoded.errors)
    server.metrics.photos.labels("answered").inc(len(done) - unread)
    server.metrics.photos.labels("unreadable").inc(unread)
    return schemas.PredictOut(answers=done)


@router.get("/classes", summary="What the model knows")
async def classes(request: Request) -> schemas.ClassesOut:
    """All classes with their photos and held-out accuracy, and what may be done."""
    server = _server(request)
    version = await run_in_threadpool(server.served.current)
    card, limits = version.model.card, server.limits
    return schemas.ClassesOut(
        model=server.served.path.name,
        digest=card.digest,
        classes=[
            schemas.ClassOut(name=one.name, images=one.images, accuracy=accuracy)
            for one, accuracy in zip(card.classes, version.accuracies, strict=True)
        ],
        held_out_images=card.held_out.images,
        accuracy=card.held_out.accuracy,
        read_only=server.read_only,
        can_undo=server.served.can_undo,
        limits=schemas.LimitsOut(bytes=limits.bytes, images=limits.images, pixels=limits.pixels),
    )


@router.post("/learn", summary="Teach photos of a class")
async def learn(
    request: Request,
    photos: Photos,
    name: Annotated[str, Form(description="The class: a new one, or one to learn more of.")],
) -> schemas.LearnOut:
    """Teaches a class, new or known, and writes the model before it answers.

    Nothing is learned if a photo cannot be read.
    """
    server = _server(request)
    _check_changeable(server)
    data, encoded = await _encode(server, photos)
    if encoded.errors:
        unread = [{"path": photos[place].filename or "", "error": why} for place, why in sorted(encoded.errors.items())]
        body = problem_body("nothing was learned: there are photos that cannot be read", "photos", "leave these out")
        raise HTTPException(422, {**body, "photos": unread})  # type: ignore[arg-type]
    done = await run_in_threadpool(server.served.learn, name.strip(), data, encoded.features)
    taught, card = done.taught, done.model.card
    server.metrics.photos.labels("taught").inc(0 if taught is None else len(photos) - done.left_out)
    return schemas.LearnOut(
        name=name.strip(),
        new=taught is not None and bool(taught.new),
        taught=len(photos) - done.left_out,
        left_out=done.left_out,
        otherwise=done.otherwise,
        seconds=0.0 if taught is None else taught.seconds,
        classes=len(card.classes),
        accuracy=card.held_out.accuracy,
    )


@router.delete("/classes/{name:path}", summary="Forget a class")
async def forget(
    request: Request, name: Annotated[str, InPath(description="The class, percent-encoded.")]
) -> schemas.ForgetOut:
    """Forgets a class; `exact` says whether the model is as if it had never learned it."""
    server = _server(request)
    _check_changeable(server)
    exact = await run_in_threadpool(server.served.forget, name)
    return schemas.ForgetOut(name=name, exact=exact, classes=len(server.served.current().model.class_names))


@router.post("/undo", summary="Take the last change back")
async def undo(request: Request) -> schemas.UndoOut:
    """Goes back to the version before the last change."""
    server = _server(request)
    _check_changeable(server)
    await run_in_threadpool(server.served.undo)
    return schemas.UndoOut(classes=len(server.served.current().model.class_names))


@router.get("/health", summary="Whether the server answers")
async def health() -> schemas.HealthOut:
    """Needs no token."""
    return schemas.HealthOut(status="ok")


@router.get("/metrics", summary="Counters for Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """Requests, photos, batches and the queue, as Prometheus reads them."""
    return Response(await run_in_threadpool(_server(request).metrics.text), media_type=CONTENT_TYPE)


@router.get("/photos/{digest}", summary="A thumbnail of a training photo", response_class=Response)
async def photo(request: Request, digest: Annotated[str, InPath(pattern="^[0-9a-f]{32}$")]) -> Response:
    """A small JPEG of a photo that `nearest` has named, if the image is still there."""
    served = _server(request).served

    def draw() -> bytes | None:
        found = served.current().nearest.photo(digest)
        return None if found is None else found.thumbnail(served.encoder.decoding)

    data = await run_in_threadpool(draw)
    if data is None:
        raise refusal(404, "this training photo is not there any more", "digest", "ask again")
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """The page."""
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


@router.get("/docs", include_in_schema=False)
async def docs() -> FileResponse:
    """A page of the OpenAPI."""
    return FileResponse(STATIC / "docs.html", headers={"Cache-Control": "no-cache"})


async def _encode(server: Server, photos: Sequence[UploadFile]) -> tuple[list[bytes], Encoded]:
    """Bytes and features of uploaded photos."""
    most = server.limits.images
    if len(photos) > most:
        problem = f"the request has {len(photos)} photos, more than {most}"
        raise refusal(413, problem, "photos", "send fewer at a time; tosca serve --max-images allows more")
    data = [await photo.read() for photo in photos]
    return data, await asyncio.wrap_future(server.batcher.submit(data))


def _answer(answer: Answer, near: Sequence[Neighbour]) -> schemas.AnswerOut:
    nearest = [
        schemas.NeighbourOut(
            label=one.label,
            similarity=one.similarity,
            photo=None if one.photo is None else f"photos/{quote(one.photo)}",
        )
        for one in near
    ]
    return schemas.AnswerOut(**vars(answer), is_novel=answer.is_novel, nearest=nearest)


def _unread(path: str, error: str) -> schemas.AnswerOut:
    return schemas.AnswerOut(**vars(Answer(path, error=error)), is_novel=False)


def _check_changeable(server: Server) -> None:
    if server.read_only:
        raise refusal(403, "the model is served read-only", "tosca serve", "start it without --read-only")


def _json(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(dict(body), status, dict(headers or {}))


async def _http_problem(request: Request, error: Any) -> JSONResponse:
    if isinstance(error.detail, dict):
        return _json(error.status_code, error.detail, error.headers)
    remedy = "see /docs for what there is"
    return _json(error.status_code, problem_body(str(error.detail), request.url.path, remedy), error.headers)


async def _invalid(request: Request, error: Any) -> JSONResponse:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return _json(422, problem_body(str(first["msg"]), where, "see /docs for what this request takes"))


async def _tosca_problem(request: Request, error: Any) -> JSONResponse:
    statuses = {UnknownClass: 404, UsageError: 422, ImageError: 422, ModelError: 409, StoreError: 409}
    status = next((number for kind, number in statuses.items() if isinstance(error, kind)), 503)
    return _json(status, problem_body(error.problem, error.where, error.remedy))


async def _busy(request: Request, error: Any) -> JSONResponse:
    body = problem_body("too many photos wait already", "photos", f"try again in {error.seconds} s")
    return _json(503, body, {"Retry-After": str(error.seconds)})


async def _failed(request: Request, error: Exception) -> JSONResponse:
    body = problem_body("the server has failed", request.url.path, "see what it has printed, and report it")
    return _json(500, body)
