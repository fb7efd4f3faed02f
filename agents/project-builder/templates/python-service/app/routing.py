"""Requests, replies, errors, and how a route is found."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Call:
    """What a handler sees of a request."""

    params: dict[str, str]
    query: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Reply:
    """What a handler answers; no body when it is None."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Route:
    """One operation: `path` may hold parameters, as `/items/{id}`."""

    method: str
    path: str
    handle: Callable[[Call], Reply]


class HttpError(Exception):
    """A failure with the status that the client gets; `fields` says what is wrong where."""

    def __init__(self, status: int, message: str, fields: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.fields = fields

    def reply(self) -> Reply:
        error: dict[str, Any] = {"message": self.message}
        if self.fields:
            error["fields"] = self.fields
        return Reply(self.status, {"error": error})


def dispatch(
    routes: list[Route], method: str, path: str, query: dict[str, str], body: Any
) -> Reply:
    """Answers by the route that fits."""
    method = "GET" if method == "HEAD" else method
    allowed: list[str] = []
    for route in routes:
        params = match(route.path, path)
        if params is None:
            continue
        if route.method == method:
            return route.handle(Call(params, query, body))
        allowed.append(route.method)
    if not allowed:
        raise HttpError(404, f"nothing is at {path}")
    offered = ", ".join(allowed)
    error = {"error": {"message": f"{path} allows {offered}"}}
    return Reply(405, error, {"allow": offered})


def match(pattern: str, path: str) -> dict[str, str] | None:
    """The parameters when the path fits the pattern."""
    wanted = pattern.split("/")
    given = path.split("/")
    if len(wanted) != len(given):
        return None
    params: dict[str, str] = {}
    for part, value in zip(wanted, given):
        if part.startswith("{"):
            params[part[1:-1]] = value
        elif part != value:
            return None
    return params
