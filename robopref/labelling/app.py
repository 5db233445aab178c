"""The HTTP interface of the labelling page. One process, one event loop; an event is acknowledged only after its commit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from robopref.arrays import InputError
from robopref.data.answer_rows import LEVELS
from robopref.data.eventlog import DiskFullError
from robopref.labelers.people import Conflict
from robopref.labelling import organiser
from robopref.labelling.accounts import Person, check_name
from robopref.labelling.guard import Bucket, Guard
from robopref.labelling.project import Project
from robopref.labelling.queries import RANDOM_SHARE

MOST_EVENTS = 50
MOST_ASSIGNMENTS = 11
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
Handler = Callable[[Request], Awaitable[Response]]


def build(project: Project) -> Any:
    """The ASGI application of a project."""
    service = Service(project)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        background = asyncio.create_task(project.keep_going())
        yield
        background.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await background

    posts: dict[str, Handler] = {
        "login": service.login, "logout": service.logout, "next": service.next, "events": service.events,
        "renew": service.renew, "release": service.release, "export": service.export, "revoke": service.revoke, "enrol": service.enrol,
    }  # fmt: skip
    gets: dict[str, Handler] = {
        "config": service.config, "progress": service.progress, "history": service.history, "quality": service.quality,
    }  # fmt: skip
    routes = [Route(f"/api/{name}", _guarded(handler), methods=["POST"]) for name, handler in posts.items()]
    routes += [Route(f"/api/{name}", _guarded(handler), methods=["GET"]) for name, handler in gets.items()]
    routes += [Route("/media/{clip:str}", service.media), Route("/", service.page), Route("/{name:str}", service.page)]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _failure})
    o = project.options
    anywhere = o.host in ("0.0.0.0", "::")
    hosts = {"127.0.0.1", "localhost", "::1", *o.hosts, socket.gethostname() if anywhere else o.host}
    return Guard(app, hosts, "https" if o.tls_cert else "http", anywhere)


class Service:
    """The handlers. Whoever asks is told by the cookie, never by the body."""

    def __init__(self, project: Project) -> None:
        self.project, self.options = project, project.options
        self.cookie = f"robopref_{project.answers.log.header['project'][:8]}"
        self.page_files = {
            e.name: e.read_bytes()
            for e in files("robopref.labelling").joinpath("page").iterdir()
            if e.name[-3:] != ".py"
        }
        self._failures = Bucket(rate=0.1, burst=10)

    async def page(self, request: Request) -> Response:
        """The files of the page, from memory: an unknown name is unknown, whatever it looks like."""
        name = request.path_params.get("name") or "index.html"
        body = self.page_files.get(name)
        if body is None:
            raise HTTPException(404, "no such page")
        kind = _KINDS[name[name.rindex(".") :]]
        return Response(body, media_type=kind, headers={"cache-control": "no-cache"})

    async def login(self, request: Request) -> Response:
        """Exchange the secret of a link for a session cookie that scripts cannot read."""
        client = request.client.host if request.client else ""
        token = (await _json(request)).get("token")
        session = self.project.accounts.login(token) if isinstance(token, str) and len(token) < 200 else None
        if session is None:
            if not self._failures.take(client):
                raise HTTPException(429, "too many attempts, wait a minute")
            raise HTTPException(401, "this link is not valid (any more)")
        reply = JSONResponse({"ok": True})
        reply.set_cookie(
            self.cookie,
            session,
            max_age=30 * 86400,
            httponly=True,
            samesite="strict",
            secure=bool(self.options.tls_cert),
        )
        return reply

    async def logout(self, request: Request) -> Response:
        """End the session."""
        self._who(request)
        self.project.accounts.logout(request.cookies[self.cookie])
        reply = JSONResponse({"ok": True})
        reply.delete_cookie(self.cookie)
        return reply

    async def config(self, request: Request) -> Response:
        """What the page needs once."""
        person, o = self._who(request), self.options
        return JSONResponse({
            "person": person.id, "role": person.role, "mode": o.mode, "question": o.text, "question_id": self.project.question_id,
            "lang": o.lang, "reasons": list(o.reasons), "both_bad": o.both_bad, "minimum": o.minimum, "prefetch": o.prefetch,
            "levels": LEVELS, "target": self.project.target, "slow_motion": self.project.clips.slow_motion,
            "source": self.project.clips.source, "strategy": o.strategy, "random_share": RANDOM_SHARE, "project": self.cookie,
        })  # fmt: skip

    async def next(self, request: Request) -> Response:
        """Up to n assignments, besides those the tab holds already."""
        person, body = self._who(request), await _json(request)
        count, tab, held = body.get("n"), body.get("tab"), _names(body.get("held", []))
        if (
            type(count) is not int
            or not 0 <= count <= MOST_ASSIGNMENTS
            or not isinstance(tab, str)
            or not re.fullmatch(r"[\w-]{8,64}", tab, re.ASCII)
        ):
            raise InputError(f"next: wanted n from 0 to {MOST_ASSIGNMENTS} and the tab's id.")
        given = self.project.answers.queue.next(person.id, tab, count, held)
        self.project.nudge()
        return JSONResponse(
            {"assignments": [self.project.assignment(g) for g in given], "progress": self.project.progress(person.id)}
        )

    async def events(self, request: Request) -> Response:
        """Store events in order; each gets its own receipt, and one that is refused does not hold up the others."""
        person, body = self._who(request), await _json(request)
        events = body.get("events")
        if not isinstance(events, list) or not 1 <= len(events) <= MOST_EVENTS:
            raise InputError(f"events: wanted a list of 1 to {MOST_EVENTS}.")
        receipts = [self._record(person.id, event) for event in events]
        self.project.nudge()
        return JSONResponse({"receipts": receipts, "progress": self.project.progress(person.id)})

    def _record(self, person: str, event: Any) -> dict[str, Any]:
        if not isinstance(event, dict):
            return {"uid": None, "status": "rejected", "reason": "an event is an object"}
        try:
            receipt = self.project.answers.record(person, event, self.project.server_part(event))
        except Conflict as error:
            return {"uid": event.get("uid"), "status": "rejected", "reason": str(error), "code": 409}
        except DiskFullError:
            raise
        except InputError as error:
            return {"uid": event.get("uid"), "status": "rejected", "reason": str(error), "code": 422}
        told: dict[str, Any] = {"uid": receipt.uid, "status": receipt.status, "reason": receipt.reason}
        if receipt.assignment is not None:
            told["assignment"] = self.project.assignment(dict(receipt.assignment))
        return told

    async def renew(self, request: Request) -> Response:
        """Extend leases; those that are not named in the reply are lost."""
        person = self._who(request)
        return JSONResponse(
            {"held": self.project.answers.queue.renew(person.id, _names((await _json(request)).get("held")))}
        )

    async def release(self, request: Request) -> Response:
        """Give leases back when a tab closes."""
        person = self._who(request)
        self.project.answers.queue.release(person.id, _names((await _json(request)).get("held")))
        return JSONResponse({"ok": True})

    async def progress(self, request: Request) -> Response:
        """Counts, and how the clips are coming along."""
        return JSONResponse(self.project.progress(self._who(request).id))

    async def history(self, request: Request) -> Response:
        """The person's last 100 answers, newest first, with what is needed to undo them."""
        person = self._who(request)
        return JSONResponse({"answers": organiser.history(self.project, person.id)})

    async def media(self, request: Request) -> Response:
        """A clip by its id, whole or in ranges."""
        self._who(request)
        found = self.project.clips.file(request.path_params["clip"])
        if found is None:
            raise HTTPException(404, "no such clip")
        if not found[0].is_file():
            raise HTTPException(503, "this clip is being made")
        return FileResponse(
            found[0], media_type=found[1], headers={"cache-control": "private, max-age=31536000, immutable"}
        )

    async def quality(self, request: Request) -> Response:
        """Agreement, speed and flags, for the organiser."""
        self._organiser(request)
        # Statistics of thousands of answers take a second, and answers must not wait for them.
        counts = self.project.answers.queue.counts() | {"checks": self.project.answers.queue.checks()}
        return JSONResponse(await asyncio.to_thread(organiser.summary, self.project, counts))

    async def export(self, request: Request) -> Response:
        """Write the sidecar now."""
        self._organiser(request)
        added = await asyncio.to_thread(organiser.export_again, self.options.dataset)
        return JSONResponse({"added": added})

    async def revoke(self, request: Request) -> Response:
        """End all links and sessions of an annotator."""
        own = self._organiser(request)
        name = (await _json(request)).get("name")
        if not isinstance(name, str) or name == own.id:
            raise InputError("revoke: wanted the name of somebody else.")
        return JSONResponse({"ended": self.project.accounts.revoke(name)})

    async def enrol(self, request: Request) -> Response:
        """A link for a new annotator; shown once."""
        self._organiser(request)
        name = (await _json(request)).get("name")
        if not isinstance(name, str):
            raise InputError("enrol: wanted a name.")
        if Person(check_name(name), "organiser") in self.project.accounts.people():
            raise InputError("enrol: got an organiser, who has a link already, wanted another name.")
        return JSONResponse({"token": self.project.accounts.enrol(name)})

    def _who(self, request: Request) -> Person:
        session = request.cookies.get(self.cookie, "")
        person = self.project.accounts.person(session) if 0 < len(session) < 200 else None
        if person is None:
            raise HTTPException(401, "open your link first")
        return person

    def _organiser(self, request: Request) -> Person:
        person = self._who(request)
        if person.role != "organiser":
            raise HTTPException(403, "for the organiser only")
        return person


def _guarded(handler: Handler) -> Handler:
    """Errors of a handler as JSON: 422 for what is wrong with the request, 503 when the disk is full."""

    async def guarded(request: Request) -> Response:
        try:
            reply = await handler(request)
        except DiskFullError as error:
            return JSONResponse({"error": str(error)}, 503, {"retry-after": "5"})
        except InputError as error:
            return JSONResponse({"error": str(error)}, 422)
        reply.headers["cache-control"] = "no-store"
        return reply

    return guarded


async def _failure(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body() or b"{}")
    except (ValueError, RecursionError):
        raise InputError("the body is not JSON.") from None
    if not isinstance(body, dict):
        raise InputError("wanted a JSON object.")
    return body


def _names(held: Any) -> list[str]:
    if not isinstance(held, list) or len(held) > 30 or not all(isinstance(h, str) and re.fullmatch(r"[\w-]{1,60}/[0-9]{1,9}", h, re.ASCII) for h in held):  # fmt: skip
        raise InputError("held: wanted a list of at most 30 leases.")
    return held
