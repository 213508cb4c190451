"""Large bodies, read and written outside of the event loop, and in small steps.

A thread alone does not help: one call that parses 50 MB holds Python's lock for a second, and every agent waits. So the
outer levels of the JSON are walked here, and only what lies deeper, which is small, is left to the fast parser; models
are validated part by part. Between two steps other threads get their turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args, get_origin

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

LARGE = 64 * 2**10  # bytes; a smaller body takes a millisecond
LEVELS = 4  # of nesting that are walked here: a result's items, their timings and their rounds
EMPTY = {"[": "]", "{": "}"}


class _NoCollection:
    """A context without garbage collection: it would visit a large body's million objects again and again, and hold
    Python's lock for half a second each time. Reference counts free what is not needed any more."""

    def __init__(self) -> None:
        self._users, self._lock, self._before = 0, threading.Lock(), True

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._before = gc.isenabled()
            self._users += 1
            gc.disable()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and self._before:
                gc.enable()


NO_COLLECTION = _NoCollection()
_one_at_a_time = ThreadPoolExecutor(1, "large-body")  # a body takes ten times its size while it is read
_decode = json.JSONDecoder().raw_decode
_skip = re.compile(r"[ \t\n\r]*").match


class LargeBodyRoute(APIRoute):
    """A route whose body, where it is large, is parsed and validated in a thread.

    Before that, ``app.state.admit`` may refuse the request: nothing is read for who has no right to send it.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of requests."""
        handle = super().get_route_handler()
        model = self.body_field.field_info.annotation if self.body_field else None
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return handle

        async def handle_large(request: Request) -> Response:
            if _announced(request) >= LARGE:
                await asyncio.to_thread(request.app.state.admit, request)
            with contextlib.ExitStack() as meanwhile:
                return await handle(_LargeRequest(model, request, meanwhile))

        return handle_large


class _LargeRequest(Request):
    """A request whose large JSON is a validated model already when FastAPI gets it, which leaves it as it is."""

    def __init__(self, model: type[BaseModel], request: Request, meanwhile: contextlib.ExitStack) -> None:
        super().__init__(request.scope, request.receive)
        self._model, self._meanwhile = model, meanwhile

    async def json(self) -> object:
        """The body: plain JSON where it is small, else the model."""
        body = await self.body()
        if len(body) < LARGE:
            return json.loads(body)
        self._meanwhile.enter_context(NO_COLLECTION)
        return await asyncio.get_running_loop().run_in_executor(_one_at_a_time, read_body, body, self._model)


def _announced(request: Request) -> int:
    """The body's size; one that is not told may be large."""
    told = request.headers.get("content-length", "")
    return int(told) if told.isdigit() and len(told) < 20 else LARGE


def read_body(body: bytes, model: type[BaseModel]) -> BaseModel:
    """A model from JSON.

    Raises:
        HTTPException: 422, it is not what the model wants; says where and why.
        ValueError: it is not JSON.
    """
    content = parse(body)
    if not isinstance(content, dict):
        return _validated(model, content, (), content)
    done = {}
    for name, field in model.model_fields.items():
        inner, given = _listed(field.annotation), content.get(name)
        if inner and isinstance(given, list):
            done[name] = [_validated(inner, part, (name, place), content) for place, part in _taken(given)]
    return _validated(model, {**content, **done}, (), content)


def _taken(parts: list[object]) -> Iterator[tuple[int, object]]:
    """Each part with its place; it is freed when the next one is asked for, and not with all others at once."""
    for place in range(len(parts)):
        yield place, parts[place]
        parts[place] = None


def _listed(annotation: object) -> type[BaseModel] | None:
    """The model of which a field is a list."""
    inner = get_args(annotation)[0] if get_origin(annotation) is list else None
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def _validated(model: type[BaseModel], part: object, where: tuple[str | int, ...], body: object) -> BaseModel:
    try:
        return model.model_validate(part)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise HTTPException(422, refusal(("body", *where, *first["loc"]), first["msg"], body)) from None


def parse(body: bytes) -> object:
    """What ``json.loads`` gives, in small steps.

    Raises:
        ValueError: it is not JSON.
    """
    text = body.decode(json.detect_encoding(body))
    value, end = _value(text, _past_space(text, 0), LEVELS)
    end = _past_space(text, end)
    if end != len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return value


def _past_space(text: str, at: int) -> int:
    found = _skip(text, at)
    return found.end() if found else at


def _value(text: str, at: int, levels: int) -> tuple[object, int]:
    begin = text[at : at + 1]
    if not levels or begin not in EMPTY:
        return _decode(text, at)
    after = _past_space(text, at + 1)
    if text[after : after + 1] == EMPTY[begin]:
        return ([] if begin == "[" else {}), after + 1
    return _array(text, after, levels - 1) if begin == "[" else _object(text, after, levels - 1)


def _array(text: str, at: int, levels: int) -> tuple[list[object], int]:
    values = []
    while True:
        value, at = _value(text, at, levels)
        values.append(value)
        at, over = _next(text, at, "]")
        if over:
            return values, at


def _object(text: str, at: int, levels: int) -> tuple[dict[str, object], int]:
    values = {}
    while True:
        if text[at : at + 1] != '"':
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
        name, at = _decode(text, at)
        at = _past_space(text, at)
        if text[at : at + 1] != ":":
            raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
        values[name], at = _value(text, _past_space(text, at + 1), levels)
        at, over = _next(text, at, "}")
        if over:
            return values, at


def _next(text: str, at: int, end: str) -> tuple[int, bool]:
    """Where the next value begins, or the end of all, and whether that is it."""
    at = _past_space(text, at)
    if text[at : at + 1] == end:
        return at + 1, True
    if text[at : at + 1] != ",":
        raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    return _past_space(text, at + 1), False


def refusal(where: Sequence[str | int], said: str, body: object) -> str:
    """What is wrong with a body: where, in which item, and what, without the body's own words."""
    return clean(f"{'.'.join(str(part) for part in where[:20])}{_item_named(where, body)}: {said}")


def clean(text: str) -> str:
    """Short, and without what is no Unicode."""
    return text[:1000].encode("utf-8", "replace").decode()


def _item_named(where: Sequence[str | int], body: Any) -> str:
    """Which item of a result a refusal is about, if it is about one."""
    try:
        return f" (item {str(body['items'][where[2]]['item'])[:300]})" if where[1] == "items" else ""
    except (LookupError, TypeError):
        return ""


def answer(content: object) -> Response:
    """JSON, made by the caller's thread; FastAPI would make it in the event loop."""
    parts = _list(content) if isinstance(content, list) else [_dumped(content)]
    return Response(b"".join(parts), media_type="application/json")


def _list(content: Iterable[object]) -> Iterable[bytes]:
    yield b"["
    for place, part in enumerate(content):
        yield b"," * bool(place) + _dumped(part)
    yield b"]"


def _dumped(content: object) -> bytes:
    return json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
