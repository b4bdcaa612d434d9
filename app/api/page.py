"""GET /: a page to try the service in a browser, built from `app/web/src`. It loads nothing from elsewhere."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tessera.app.errors import NotFoundError

router = APIRouter(include_in_schema=False)

_FOLDER = Path(__file__).parents[1] / "web" / "built"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}
_HEADERS = {
    # blob: is the photo that a visitor has chosen, shown to himself.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; base-uri 'none'; object-src 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # ask each time; an unchanged file is answered with 304
}


class _File(NamedTuple):
    """A file of the page, and what tells its versions apart."""

    content: bytes
    kind: str
    tag: str


@router.get("/")
async def page(request: Request) -> Response:
    """Answer with the page."""
    return _answer(request, "index.html")


@router.get("/page/{name}")
async def part(request: Request, name: str) -> Response:
    """Answer with a script, style or picture of the page."""
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    file = _files().get(name)
    if file is None:
        raise NotFoundError(f"There is no {request.url.path}.")
    headers = {**_HEADERS, "ETag": file.tag, "Content-Type": file.kind}
    asked = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if file.tag in asked or "*" in asked:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers)


@lru_cache
def _files() -> dict[str, _File]:
    """All of them; read once, and only these names are ever answered."""
    return {path.name: _read(path) for path in sorted(_FOLDER.iterdir())}


def _read(path: Path) -> _File:
    content = path.read_bytes()
    return _File(content, _TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:16]}"')
