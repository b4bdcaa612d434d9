"""Query parameters: those that an operation documents; ignoring any other would answer another question."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from fastapi import Request
from fastapi.routing import APIRoute

from tessera.app.errors import UnknownParameterError, quoted

_LONGEST = 1024  # bytes of a query; what is documented needs a dozen


def check_query(request: Request) -> None:
    """Check the query of a request whose route is known.

    Raises:
        UnknownParameterError: It has a parameter that the route does not document; the message names the nearest
            parameter or header that it does.
    """
    query: bytes = request.scope["query_string"]
    if not query:
        return
    if len(query) > _LONGEST:
        raise UnknownParameterError(f"The query has {len(query)} bytes; no path here takes more than {_LONGEST}.")
    route = request.scope.get("route")
    known = _documented(route, "query") if isinstance(route, APIRoute) else []
    for name in request.query_params:
        if name not in known:
            headers = _documented(route, "header") if isinstance(route, APIRoute) else []
            raise UnknownParameterError(
                f"This path has no query parameter {quoted(name, 40)}; {_hint(name[:40], known, headers)}."
            )


async def refuse_unknown_query(request: Request) -> None:
    """`check_query` as a dependency. A coroutine, because FastAPI sends plain functions to a thread."""
    check_query(request)


def _documented(route: APIRoute, place: str) -> list[str]:
    """Names of the parameters that a route has in `place`, by its signature and by its OpenAPI document."""
    extra = (route.openapi_extra or {}).get("parameters", [])
    declared = route.dependant.query_params if place == "query" else route.dependant.header_params
    return [entry["name"] for entry in extra if entry["in"] == place] + [field.alias for field in declared]


def _hint(name: str, parameters: Iterable[str], headers: Iterable[str]) -> str:
    """What was probably meant: a parameter or header of nearly that name, or one that has it as a part."""
    meant = {_plain(header): f"it is the header {header}" for header in headers}
    meant |= {_plain(parameter): f"did you mean {parameter}?" for parameter in parameters}
    wanted = _plain(name)
    near = difflib.get_close_matches(wanted, meant, n=1)
    near += [candidate for candidate in meant if len(wanted) > 2 and wanted in candidate]
    if near:
        return meant[near[0]].rstrip("?")
    return f"it takes: {', '.join(parameters)}" if parameters else "it takes none"


def _plain(name: str) -> str:
    """A name without case, the X- of headers, and what separates words."""
    return re.sub(r"[^a-z0-9]", "", name.lower().removeprefix("x-"))
