"""The page of `semedit paint` on this machine: who may ask, and how the answers go.

Everything lies below http://127.0.0.1:PORT/TOKEN/, and nothing is answered elsewhere. Faces go by
their number in the list that the server holds, so no request names a path. What takes long is
answered in lines of JSON: {"progress": [done, total]}, and last {"done": ...} or {"error": ...};
whoever hangs up cancels it.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from semedit.errors import SemeditError
from semedit.media.labels import LABELS, PALETTE
from semedit.web.studio import Progress, State, Studio

PAGE = Path(__file__).parent / "page"
FILES = {  # all that is served of the disk, besides pictures of faces
    "": ("paint.html", "text/html; charset=utf-8"),
    "paint.js": ("paint.js", "text/javascript; charset=utf-8"),
    "map.js": ("map.js", "text/javascript; charset=utf-8"),
    "look.css": ("look.css", "text/css; charset=utf-8"),
    "paint.css": ("paint.css", "text/css; charset=utf-8"),
}
MAX_BODY = 8 << 20  # bytes of a request: a label map of 4096 pixels a side is less
LOOK_S = 0.2  # how often a long answer looks whether somebody still waits for it
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
# What people call the labels; the others' own names are plain enough.
WORDS = {
    "eye_g": "glasses",
    "l_eye": "left eye",
    "r_eye": "right eye",
    "l_brow": "left brow",
    "r_brow": "right brow",
    "l_ear": "left ear",
    "r_ear": "right ear",
    "mouth": "mouth inside",
    "u_lip": "upper lip",
    "l_lip": "lower lip",
    "ear_r": "earring",
    "neck_l": "necklace",
    "cloth": "clothes",
}


class Cancelled(Exception):
    """Whoever asked does not wait any longer."""


class Guard:
    """Lets a request through that has the token, comes from this page or from no page at all, and
    is small; puts HEADERS on every answer.

    Args: token: first part of every path. hosts: what the Host header may say.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str]) -> None:
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no web sockets: the server closes them

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((k.encode(), v.encode()) for k, v in HEADERS.items()),
                ]
            await send(message)

        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        refusal = self._refusal(scope["path"], headers)
        if refusal is not None:
            await Response(status_code=refusal)(scope, receive, with_headers)
            return
        inner = {**scope, "path": scope["path"][1 + len(self.token) :], "root_path": ""}
        await self.app(inner, _limited(receive), with_headers)

    def _refusal(self, path: str, headers: Mapping[str, str]) -> int | None:
        """The status to refuse a request with; None: it may pass."""
        host, origin = headers.get("host", ""), headers.get("origin")
        token = path[1:].partition("/")[0]
        known = secrets.compare_digest(token.encode(), self.token.encode())
        same = origin is None or origin in {f"http://{host}" for host in self.hosts}
        # Browsers say it also where they send no origin: for pictures and scripts.
        site = headers.get("sec-fetch-site", "none")
        if headers.get("sec-fetch-mode") != "navigate" and site not in ("same-origin", "none"):
            same = False
        if host not in self.hosts or not same or not known or not path.startswith(f"/{token}/"):
            return 403
        length = headers.get("content-length", "0")
        return 413 if not length.isdecimal() or int(length) > MAX_BODY else None


def _limited(receive: Receive) -> Receive:
    """Bodies that do not say how long they are, cut where they get too long."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY:
            raise HTTPException(413)
        return message

    return limited


class Page:
    """The answers to the page's requests, from a studio."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self._working = threading.Lock()  # one computation at a time

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/faces", self.faces),
                Route("/faces/{index:int}", self.face),
                Route("/faces/{index:int}/photograph.png", self.photograph),
                Route("/faces/{index:int}/thumbnail.webp", self.thumbnail),
                Route("/faces/{index:int}/maps", self.keep_map, methods=["POST"]),
                Route("/faces/{index:int}/edit", self.edit, methods=["POST"]),
                Route("/faces/{index:int}/save", self.save, methods=["POST"]),
                Route("/faces/{index:int}/invert", self.invert, methods=["POST"]),
                Route("/{file}", self.file),
                Route("/", self.file),
            ],
            exception_handlers={SemeditError: _refused},
        )

    def _name(self, request: Request) -> str:
        index = request.path_params["index"]
        if index >= len(self.studio.names):
            raise HTTPException(404)
        return self.studio.names[index]

    async def file(self, request: Request) -> Response:
        found = FILES.get(request.path_params.get("file", ""))
        if found is None:
            raise HTTPException(404)
        name, kind = found
        return Response((PAGE / name).read_bytes(), media_type=kind)

    async def faces(self, request: Request) -> Response:
        studio = self.studio
        labels = [
            {"name": WORDS.get(name, name), "colour": list(colour)}
            for name, colour in zip(LABELS, PALETTE, strict=True)
        ]
        offers = await run_in_threadpool(studio.offers)
        return JSONResponse({"faces": studio.names, "labels": labels, **offers})

    async def face(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self.studio.face, self._name(request)))

    async def photograph(self, request: Request) -> Response:
        pixels = await run_in_threadpool(self.studio.photograph, self._name(request))
        return Response(_png(pixels), media_type="image/png")

    async def thumbnail(self, request: Request) -> Response:
        pixels = await run_in_threadpool(self.studio.photograph, self._name(request))
        image, buffer = Image.fromarray(pixels), io.BytesIO()
        image.thumbnail((112, 112), Image.Resampling.LANCZOS)
        image.save(buffer, "WEBP", quality=80)
        return Response(buffer.getvalue(), media_type="image/webp")

    async def keep_map(self, request: Request) -> Response:
        name, data = self._name(request), await request.body()
        return JSONResponse({"map": await run_in_threadpool(self.studio.keep_map, name, data)})

    async def edit(self, request: Request) -> Response:
        """The picture of a chain of edits from one side, and what the chain is on the command line.

        Asked: {"start", "chain", "yaw_deg", "pitch_deg"}.
        """
        name, asked = self._name(request), await _asked(request)

        def work(progress: Progress) -> dict[str, Any]:
            started = time.perf_counter()
            start, chain = asked["start"], asked["chain"]
            state = self.studio.state(name, start, chain, progress)
            pixels = self.studio.view(state, asked.get("yaw_deg", 0), asked.get("pitch_deg", 0))
            return {
                **_told(state),
                "picture": _url(pixels),
                "commands": self.studio.commands(name, start, chain),
                "seconds": round(time.perf_counter() - started, 3),
            }

        return self._stream(request, work)

    async def save(self, request: Request) -> Response:
        """Asked: {"start", "chain"}."""
        name, asked = self._name(request), await _asked(request)

        def work(progress: Progress) -> dict[str, Any]:
            start, chain = asked["start"], asked["chain"]
            saved = self.studio.save(name, start, chain, progress)
            drawn = [path for path in self.studio.places(name, chain) if path is not None]
            return {
                "steps": [one.name for one in saved],
                "files": [
                    *map(self.studio.space.relative, drawn),
                    *(path for one in saved for path in one.outputs),
                ],
                "warnings": [text for one in saved for text in one.warnings],
                "commands": self.studio.commands(name, start, chain, saved),
            }

        return self._stream(request, work)

    async def invert(self, request: Request) -> Response:
        name = self._name(request)
        await _asked(request)

        def work(progress: Progress) -> dict[str, Any]:
            outcome = self.studio.invert(name, progress)
            return {"files": list(outcome.outputs), "figures": dict(outcome.figures)}

        return self._stream(request, work)

    def _stream(self, request: Request, work: Callable[[Progress], dict[str, Any]]) -> Response:
        """Do it in a thread, tell of its progress meanwhile, end it when nobody waits for it."""

        async def lines() -> AsyncIterator[bytes]:
            told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
            tell, gone = asyncio.get_running_loop().call_soon_threadsafe, threading.Event()

            def progress(done: int, total: int) -> None:
                if gone.is_set():
                    raise Cancelled
                tell(told.put_nowait, {"progress": [done, total]})

            running = asyncio.create_task(asyncio.to_thread(self._do, work, progress, gone))
            running.add_done_callback(lambda task: told.put_nowait(_end(task)))
            try:
                while True:
                    try:
                        line = await asyncio.wait_for(told.get(), LOOK_S)
                    except TimeoutError:
                        if await request.is_disconnected():
                            return
                        continue
                    yield json.dumps(line).encode() + b"\n"
                    if "progress" not in line:
                        return
            finally:
                gone.set()

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    def _do(
        self, work: Callable[[Progress], Any], progress: Progress, gone: threading.Event
    ) -> Any:
        with self._working:
            if gone.is_set():
                raise Cancelled
            return work(progress)


def _end(task: asyncio.Task[Any]) -> dict[str, Any]:
    """The last line of an answer."""
    if task.cancelled():
        return {"error": {"message": "the server ends", "hint": None}}
    error = task.exception()
    if error is None:
        return {"done": task.result()}
    if isinstance(error, SemeditError):
        return {"error": {"message": error.message, "hint": error.hint}}
    if isinstance(error, Cancelled):
        return {"error": {"message": "cancelled", "hint": None}}
    task.get_loop().call_exception_handler({"message": "a request failed", "exception": error})
    return {"error": {"message": f"a fault of semedit: {error!r}", "hint": "see the terminal"}}


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, SemeditError)
    told = {"message": error.message, "hint": error.hint}
    return JSONResponse({"error": told}, status_code=422)


async def _asked(request: Request) -> dict[str, Any]:
    """The JSON object of a request.

    Raises: HTTPException: it is none, or a chain is not one.
    """
    if request.headers.get("content-type") != "application/json":
        raise HTTPException(415)
    try:
        asked = json.loads(await request.body())
    except ValueError as error:
        raise HTTPException(400) from error
    fits = isinstance(asked, dict) and isinstance(asked.setdefault("start", "latents"), str)
    chain = asked.setdefault("chain", []) if fits else None
    angles = [asked.get(key, 0) for key in ("yaw_deg", "pitch_deg")] if fits else ["none"]
    fits = isinstance(chain, list) and all(isinstance(step, dict) for step in chain)
    if not fits or not all(isinstance(angle, int | float) for angle in angles):
        raise HTTPException(400)
    return asked


def _told(state: State) -> dict[str, Any]:
    """A state as the page takes it; the label map one byte a pixel."""
    now = base64.b64encode(state.now.astype(np.uint8).tobytes()).decode()
    return {"now": now, "told": dict(state.told), "warnings": list(state.warnings)}


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _url(pixels: np.ndarray) -> str:
    return f"data:image/png;base64,{base64.b64encode(_png(pixels)).decode()}"


def serve(
    studio: Studio, port: int = 0, ready: Callable[[str], None] = lambda address: None
) -> None:
    """Serve the page until Ctrl-C.

    Args:   port: 0 takes a free one. ready: is told the page's address.
    Raises: OSError: the port is taken.
    """
    import uvicorn

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.bind(("127.0.0.1", port))
        own.listen()  # whoever hears of the address is answered, if later
        bound = own.getsockname()[1]
        token = secrets.token_urlsafe(24)
        hosts = frozenset({f"127.0.0.1:{bound}", f"localhost:{bound}"})
        app = Guard(Page(studio).app(), token, hosts)
        config = uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        ready(f"http://127.0.0.1:{bound}/{token}/")
        uvicorn.Server(config).run(sockets=[own])
