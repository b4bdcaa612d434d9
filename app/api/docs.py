"""GET /openapi.json and /docs: the OpenAPI document, and as one plain page, which loads nothing from anywhere."""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse

router = APIRouter(include_in_schema=False)

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430 }
section { border-top: 1px solid #ccd3dc; margin-top: 2rem } h2 { font-size: 1.1rem }
code, pre { font-family: ui-monospace, monospace; background: #f2f4f7; border-radius: 3px; padding: 0 .2rem }
pre { padding: .6rem; overflow-x: auto } td, th { text-align: left; vertical-align: top; padding: .1rem 1rem .1rem 0 }
"""

_TRY = """
<form method="post" action="/v1/classify" enctype="multipart/form-data">
<label>Try it: <input type="file" name="file" accept="image/*" multiple required></label> <button>Classify</button>
</form>
"""


@router.get("/docs", response_class=HTMLResponse)
async def docs(request: Request) -> HTMLResponse:
    """Answer with the page."""
    return HTMLResponse(render(request.app.openapi()), headers={"Content-Security-Policy": _POLICY})


@router.get("/openapi.json")
async def openapi(request: Request) -> JSONResponse:
    """Answer with the OpenAPI document."""
    return JSONResponse(request.app.openapi())


def render(document: dict[str, Any]) -> str:
    """Turn an OpenAPI document into a page: every operation with its parameters, bodies and answers."""
    info = document["info"]
    operations = [
        _operation(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f"<style>{_STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f"<p>{_text(info.get('description', ''))}</p>{_TRY}"
        '<p>For programs: <a href="/openapi.json">/openapi.json</a> (OpenAPI, for any generator or viewer).</p>'
        f"{''.join(operations)}</html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    heading = f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>"
    summary = f"<p>{_text(operation.get('summary', ''))}. {_text(operation.get('description', ''))}</p>"
    parameters = [(f"{entry['name']} ({entry['in']})", _parameter(entry)) for entry in operation.get("parameters", [])]
    body = operation.get("requestBody", {})
    bodies = [(kind, body.get("description", "")) for kind in body.get("content", {})]
    answers = [(status, answer.get("description", "")) for status, answer in operation.get("responses", {}).items()]
    tables = _table("Parameter", parameters) + _table("Body", bodies) + _table("Answer", answers)
    return f"<section>{heading}{summary}{tables}</section>"


def _parameter(entry: dict[str, Any]) -> str:
    default = entry.get("schema", {}).get("default")
    return f"{entry.get('description', '')}{'' if default is None else f' (default {default})'}"


def _table(name: str, rows: list[tuple[str, str]]) -> str:
    if not rows:
        return ""
    lines = [f"<tr><td><code>{escape(key)}</code></td><td>{_text(value)}</td></tr>" for key, value in rows]
    return f"<table><tr><th>{name}</th><th></th></tr>{''.join(lines)}</table>"


def _text(markdown: str) -> str:
    """Escape a text; spans of code and bold, which our descriptions use, keep their meaning."""
    pieces = escape(markdown.strip()).split("`")
    code = "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))
    bold = code.split("**")
    return "".join(f"<b>{piece}</b>" if index % 2 else piece for index, piece in enumerate(bold))
