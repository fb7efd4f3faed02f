"""Records in memory with checked fields, and their routes."""

import math
import re
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import Any

from app.routing import Call, HttpError, Reply, Route

# How many records one collection keeps.
RECORDS_MAX = 10_000
# How many records one page of a list has at most, and when the client does not say.
PAGE_SIZE_MAX = 1_000
PAGE_SIZE = 100

TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


@dataclass(frozen=True)
class Field:
    """A field of a record."""

    name: str
    type: str
    required: bool
    max_length: int | None = None

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, if anything."""
        is_boolean = isinstance(value, bool)
        if not isinstance(value, TYPES[self.type]) or is_boolean != (self.type == "boolean"):
            return f"must be of type {self.type}"
        if isinstance(value, float) and not math.isfinite(value):
            return "must be a finite number"
        if not isinstance(value, str):
            return None
        if self.required and not value:
            return "must not be empty"
        if self.max_length is not None and len(value) > self.max_length:
            return f"must have at most {self.max_length} characters"
        return None


class Collection:
    """Records in memory, and the routes that read and change them."""

    def __init__(self, name: str, fields: list[Field]) -> None:
        self.name = name
        self.fields = fields
        self.records: dict[int, dict[str, Any]] = {}
        self.next_id = 1
        self.lock = Lock()

    def routes(self, operations: list[str]) -> list[Route]:
        """The routes of these operations."""
        every, one = f"/{self.name}", f"/{self.name}/{{id}}"
        known = {
            "list": Route("GET", every, self.page),
            "get": Route("GET", one, self.get),
            "create": Route("POST", every, self.create),
            "update": Route("PUT", one, self.update),
            "delete": Route("DELETE", one, self.delete),
        }
        return [known[operation] for operation in operations]

    def page(self, call: Call) -> Reply:
        limit = whole_number(call, "limit", PAGE_SIZE, 1, PAGE_SIZE_MAX)
        offset = whole_number(call, "offset", 0, 0, RECORDS_MAX)
        with self.lock:
            items = [*islice(self.records.values(), offset, offset + limit)]
            return Reply(200, {"items": items, "total": len(self.records)})

    def get(self, call: Call) -> Reply:
        with self.lock:
            return Reply(200, self.records[self.find(call)])

    def create(self, call: Call) -> Reply:
        values = self.check(call.body)
        with self.lock:
            if len(self.records) >= RECORDS_MAX:
                raise HttpError(507, f"{self.name} holds {RECORDS_MAX} records and is full")
            number = self.next_id
            self.next_id += 1
            entry = self.records[number] = {"id": number, **values}
        return Reply(201, entry, {"location": f"/{self.name}/{number}"})

    def update(self, call: Call) -> Reply:
        with self.lock:
            number = self.find(call)
            entry = self.records[number] = {"id": number, **self.check(call.body)}
        return Reply(200, entry)

    def delete(self, call: Call) -> Reply:
        with self.lock:
            del self.records[self.find(call)]
        return Reply(204)

    def find(self, call: Call) -> int:
        text = call.params["id"]
        if re.fullmatch("[1-9][0-9]{0,14}", text) and int(text) in self.records:
            return int(text)
        raise HttpError(404, f"{self.name} has no record {text}")

    def check(self, body: Any) -> dict[str, Any]:
        """The body's fields in the order of their declaration."""
        if not isinstance(body, dict):
            raise HttpError(400, "the body must be a JSON object")
        known = {field.name for field in self.fields}
        problems = {name: "is not a field of this resource" for name in body if name not in known}
        values: dict[str, Any] = {}
        for field in self.fields:
            if field.name in body:
                value = values[field.name] = body[field.name]
                problem = field.problem(value)
            else:
                problem = "is missing" if field.required else None
            if problem is not None:
                problems[field.name] = problem
        if problems:
            raise HttpError(400, "some fields are not valid", problems)
        return values


def whole_number(call: Call, name: str, unset: int, least: int, most: int) -> int:
    text = call.query.get(name)
    if text is None:
        return unset
    if re.fullmatch("[0-9]{1,9}", text) and least <= int(text) <= most:
        return int(text)
    problem = f"must be a whole number from {least} to {most}"
    raise HttpError(400, "a query parameter is not valid", {name: problem})
