"""`robopref annotate DATASET`: opens the project, binds the port, prints the address when ready, serves until interrupted."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robopref.arrays import InputError
from robopref.labelling.options import Options, parse


def annotate(words: Sequence[str]) -> int:
    """Run the labelling server (or, with export=true or restore=true, only write the sidecar or read it); returns the exit code."""
    options = parse(words)
    if options.restore:
        from robopref.labelling.restore import restore

        print(f"{restore(options.dataset)} answers came back from {options.dataset / 'meta/preferences'}")
        return 0
    if options.export:
        from robopref.labelling.organiser import export_again

        print(f"{export_again(options.dataset)} new rows in {options.dataset / 'meta/preferences'}")
        return 0
    _check_extra()
    if not options.loopback and not options.annotators:
        raise InputError(
            f"host: got {options.host}, which others can reach, wanted annotators=[NAME,...] with it: everybody gets a link of their own.\n"
            "Or keep 127.0.0.1 and let people in with `ssh -L PORT:127.0.0.1:PORT`."
        )
    from robopref.labelling.project import Project

    bound = _bind(options)
    try:
        project = Project(options)
    except BaseException:
        bound.close()
        raise
    try:
        serve(project, bound, _links(project, bound))
    finally:
        project.close()
        bound.close()
    return 0


def serve(project: Any, bound: socket.socket, links: list[tuple[str, str]]) -> None:
    """Serve until interrupted; `links` are printed once the server answers, the first one opens in a browser."""
    import uvicorn

    from robopref.labelling.app import build

    options = project.options
    app = build(project)
    if options.delay:
        app = _Delayed(app, options.delay / 1000)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, date_header=True, proxy_headers=False, ws="none", lifespan="on",
        workers=1, limit_concurrency=900,  # a browser opens up to six connections: a hundred people
        timeout_keep_alive=75, timeout_graceful_shutdown=3, h11_max_incomplete_event_size=32 * 1024,
        ssl_certfile=options.tls_cert or None, ssl_keyfile=options.tls_key or None,
    )  # fmt: skip

    class Server(uvicorn.Server):
        """Says where it is once it is there."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            for name, link in links:
                print(f"{name}: {link}" if len(links) > 1 else link, flush=True)
            if options.browser and sys.stdout.isatty():
                await asyncio.to_thread(webbrowser.open, links[0][1])

    logging.basicConfig(level=logging.WARNING, format="robopref: %(message)s")
    Server(config).run(sockets=[bound])


def _links(project: Any, bound: socket.socket) -> list[tuple[str, str]]:
    """(name, address with secret) of everybody; secrets stand behind #, so they reach no log."""
    options, port = project.options, bound.getsockname()[1]
    scheme = "https" if options.tls_cert else "http"
    host = (
        options.host
        if options.host not in ("0.0.0.0", "::")
        else (options.hosts[0] if options.hosts else socket.gethostname())
    )
    shown = f"[{host}]" if ":" in host else host
    people = [(options.me, "organiser"), *((name, "annotator") for name in options.annotators if name != options.me)]
    return [(name, f"{scheme}://{shown}:{port}/#t={project.accounts.enrol(name, role)}") for name, role in people]


def _bind(options: Options) -> socket.socket:
    for path in (options.tls_cert, options.tls_key):
        if path and not Path(path).is_file():
            raise InputError(f"annotate: got no file {path}, wanted a certificate and its key.")
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # With the protocol named, asyncio sends every part of a reply at once; without it, an answer waits 40 ms for an acknowledgement.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((options.host, options.port))
    except OSError as error:
        bound.close()
        raise InputError(
            f"port: {options.host}:{options.port} cannot be used ({os.strerror(error.errno or 0)}).\nChoose another with port=N (0: any free one)."
        ) from error
    return bound


def _check_extra() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"annotate: the Python package {missing[0]} is missing.\nInstall the extra: pip install 'robopref[label]'"
        )


class _Delayed:
    """Answers later than it could, as a far server would."""

    def __init__(self, app: Any, seconds: float) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await asyncio.sleep(self._seconds)
        await self._app(scope, receive, send)
