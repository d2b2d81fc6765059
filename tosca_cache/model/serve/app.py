"""The HTTP interface of a model, and its page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, File, Form, Query, Request, Response, UploadFile
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Counter, Gauge, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from tosca_cache.errors import ImageError, ModelError, StoreError, ToscaError, UsageError
from tosca_cache.model.answers import answers
from tosca_cache.model.encoder import Encoded
from tosca_cache.model.serve import schemas
from tosca_cache.model.serve.batching import Batcher
from tosca_cache.model.serve.guard import Guard, Limits, problem_body, refusal
from tosca_cache.model.serve.served import Served

STATIC = Path(__file__).parent / "static"
MOST_TOP, MOST_NEAREST = 1000, 20
Photos = Annotated[list[UploadFile], File(description="One or many image files.")]


def create_app(served: Served, limits: Limits, *, token: str | None = None, read_only: bool = False) -> FastAPI:
    """The application. token: what clients have to send; without one only this machine is answered."""
    app = FastAPI(
        title="tosca serve",
        description="A classifier of photos: ask it, teach it, undo.",
        version="1",
        docs_url=None,
        redoc_url=None,
    )
    state, registry, batcher = app.state, CollectorRegistry(), Batcher(served.encoder.encode, limits.waiting)
    state.served, state.limits, state.read_only = served, limits, read_only
    state.batcher, state.registry = batcher, registry
    state.photos = Counter("tosca_photos", "Photos: answered, unreadable, taught.", ["outcome"], registry=registry)
    for name, said, value in (
        ("tosca_photos_waiting", "Photos that wait for the backbone.", lambda: batcher.waiting),
        ("tosca_classes", "Classes of the model.", lambda: len(served.current[0].class_names)),
    ):
        Gauge(name, said, registry=registry).set_function(value)
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC))
    for kind in (HTTPException, RequestValidationError, ToscaError, Exception):
        app.add_exception_handler(kind, _problem)
    app.add_middleware(Guard, limits=limits, token=token, registry=registry)
    return app


router = APIRouter(responses={"default": {"model": schemas.Problem, "description": "what is wrong, and what to do"}})


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
    state, names = request.app.state, [photo.filename or "" for photo in photos]
    _, encoded = await _encode(state, photos)

    def answer() -> list[schemas.AnswerOut]:
        """What the model that is served at this moment says of each photo."""
        model, training = state.served.current
        found = answers(model, names, encoded, top=top, threshold=threshold)
        near = training.to(encoded.features, nearest)
        return [
            schemas.AnswerOut(**vars(one), is_novel=one.is_novel, nearest=beside if one.error is None else [])
            for one, beside in zip(found, near, strict=True)
        ]

    done, unread = await run_in_threadpool(answer), len(encoded.errors)
    state.photos.labels("answered").inc(len(done) - unread)
    state.photos.labels("unreadable").inc(unread)
    return schemas.PredictOut(answers=done)


@router.get("/classes", summary="What the model knows")
async def classes(request: Request) -> schemas.ClassesOut:
    """All classes with their photos and held-out accuracy, and what may be done."""
    state = request.app.state
    model, limits = state.served.current[0], state.limits
    card, accuracies = model.card, await run_in_threadpool(model.class_accuracies)
    return schemas.ClassesOut(
        model=state.served.path.name,
        digest=card.digest,
        classes=[
            schemas.ClassOut(name=one.name, images=one.images, accuracy=accuracy)
            for one, accuracy in zip(card.classes, accuracies, strict=True)
        ],
        held_out_images=card.held_out.images,
        accuracy=card.held_out.accuracy,
        read_only=state.read_only,
        can_undo=state.served.can_undo,
        limits={"bytes": limits.bytes, "images": limits.images, "pixels": limits.pixels},
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
    state, name = _changeable(request), name.strip()
    data, encoded = await _encode(state, photos)
    for place, why in encoded.errors.items():
        unread = f"nothing was learned: {photos[place].filename or f'photo {place + 1}'} cannot be read: {why}"
        raise refusal(422, unread, "photos", "leave it out")
    model, taught = await run_in_threadpool(state.served.learn, name, data, encoded.features)
    count = sum((taught.new | taught.known).values())
    state.photos.labels("taught").inc(count)
    return schemas.LearnOut(
        name=name,
        new=bool(taught.new),
        taught=count,
        left_out=len(photos) - count,
        classes=len(model.class_names),
    )


@router.delete("/classes/{name:path}", summary="Forget a class")
async def forget(
    request: Request, name: Annotated[str, InPath(description="The class, percent-encoded.")]
) -> schemas.ForgetOut:
    """Forgets a class; `exact` says whether the model is as if it had never learned it."""
    served = _changeable(request).served
    if name not in served.current[0].class_names:
        raise refusal(404, f"the model knows no class {name!r}"[:200], "name", "see GET /classes for their names")
    exact = await run_in_threadpool(served.forget, name)
    return schemas.ForgetOut(name=name, exact=exact, classes=len(served.current[0].class_names))


@router.post("/undo", summary="Take the last change back")
async def undo(request: Request) -> dict[str, int]:
    """Goes back to the version before the last change; how many classes there are then."""
    served = _changeable(request).served
    await run_in_threadpool(served.undo)
    return {"classes": len(served.current[0].class_names)}


@router.get("/health", summary="Whether the server answers")
async def health() -> dict[str, str]:
    """Needs no token."""
    return {"status": "ok"}


@router.get("/metrics", summary="Counters for Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """Requests, photos and the queue, as Prometheus reads them."""
    return Response(
        await run_in_threadpool(generate_latest, request.app.state.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4
    )


@router.get("/photos/{digest}", summary="A thumbnail of a training photo", response_class=Response)
async def photo(request: Request, digest: Annotated[str, InPath(pattern="^[0-9a-f]{32}$")]) -> Response:
    """A small JPEG of a photo that `nearest` has named, if the image is still there."""
    served: Served = request.app.state.served
    data = await run_in_threadpool(lambda: served.current[1].thumbnail(digest, served.encoder.decoding))
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


async def _encode(state: Any, photos: Sequence[UploadFile]) -> tuple[list[bytes], Encoded]:
    """Bytes and features of uploaded photos."""
    if len(photos) > state.limits.images:
        problem = f"the request has {len(photos)} photos, more than {state.limits.images}"
        raise refusal(413, problem, "photos", "send fewer at a time; tosca serve --max-images allows more")
    data = [await photo.read() for photo in photos]
    return data, await state.batcher.encoded(data)


def _changeable(request: Request) -> Any:
    """What the endpoints share, if the model may be changed."""
    if request.app.state.read_only:
        raise refusal(403, "the model is served read-only", "tosca serve", "start it without --read-only")
    return request.app.state


async def _problem(request: Request, error: Any) -> JSONResponse:
    """Every failure as what is wrong, where, and what to do."""
    if isinstance(error, HTTPException):
        plain = problem_body(str(error.detail), request.url.path, "see /docs for what there is")
        return JSONResponse(error.detail if isinstance(error.detail, dict) else plain, error.status_code, error.headers)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return JSONResponse(problem_body(str(first["msg"]), where, "see /docs for what this request takes"), 422)
    if isinstance(error, ToscaError):
        statuses = {UsageError: 422, ImageError: 422, ModelError: 409, StoreError: 409}
        status = next((number for kind, number in statuses.items() if isinstance(error, kind)), 503)
        return JSONResponse(problem_body(error.problem, error.where, error.remedy), status)
    body = problem_body("the server has failed", request.url.path, "see what it has printed, and report it")
    return JSONResponse(body, 500)
