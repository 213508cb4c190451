"""What is done to pages when the site is built.

A line ``<!-- keys: MODULE:CLASS -->`` becomes tables of a document's keys, and ``<!-- kinds of blocks -->`` a table of
those that stages can be made of; notes for the tests are left out. Notebooks become pages.

Keys, types, bounds and defaults are those of the pydantic model; what a key means is in its description there, or in
the docstring.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from griffe import Docstring, DocstringSectionAttributes
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ofa_deploy.blocks.kinds import KINDS, StageKind

NOT_RUN = re.compile(r"^# not run by the tests: .*\n", re.MULTILINE)
NO_DEFAULT = re.compile(r"<code>Sentinel\.UNSET</code>")  # mkdocs-click shows it where an option has no default
MARK = re.compile(r"^<!-- keys: ([\w.]+):(\w+) -->$", re.MULTILINE)
KINDS_MARK = "<!-- kinds of blocks -->"
SIGNS = {
    "exclusiveMinimum": ">",
    "minimum": "≥",
    "exclusiveMaximum": "<",
    "maximum": "≤",
    "multipleOf": "a multiple of",
}
WORDS = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "nothing"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """MkDocs calls this with all files: a page is added for each notebook."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        name = notebook.src_uri.rpartition("/")[2]
        text = as_markdown(json.loads(notebook.content_string), name)
        files.append(File.generated(config, notebook.src_uri.removesuffix(".ipynb") + ".md", content=text))
    return files


def as_markdown(notebook: Mapping[str, Any], name: str) -> str:
    """A notebook's text and code; what it printed is left out."""
    cells = [("".join(cell["source"]), cell["cell_type"]) for cell in notebook["cells"]]
    parts = [f"```python\n{text}\n```" if kind == "code" else text for text, kind in cells]
    return "\n\n".join([*parts, f"This page is a notebook: [{name}]({name})."])


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this with each page."""
    markdown = MARK.sub(lambda found: tables(model(found[1], found[2])), NOT_RUN.sub("", markdown))
    return markdown.replace(KINDS_MARK, kinds())


def on_page_content(html: str, **_: Any) -> str:
    """MkDocs calls this with what became of a page."""
    return NO_DEFAULT.sub("", html)


def kinds() -> str:
    """A table of the kinds of blocks that stages can be made of."""
    rows = ["| `block` | what it is | `kernels` | `expands` multiply | `se` |", "|---|---|---|---|---|"]
    for name, kind in sorted(KINDS.items()):
        if isinstance(kind, StageKind):
            channels = "output" if kind.expanded(1, 2) == 2 else "input"
            cells = (
                f"`{name}`",
                single(inspect.cleandoc(kind.__doc__ or "")),
                "pairs" if kind.pairs else "numbers",
                f"{channels} channels" if kind.expands else "nothing: `[1]`",
                "yes" if kind.gated else "no",
            )
            rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def model(module: str, name: str) -> type[BaseModel]:
    """A document's model."""
    found: type[BaseModel] = getattr(importlib.import_module(module), name)
    return found


def tables(root: type[BaseModel]) -> str:
    """A table of a document's keys, and one of each document inside it, under a heading that says where."""
    parts = []
    for where, document in documents(root):
        text = f"{summary(document)}\n\n{table(document)}"
        parts.append(f"#### `{where}`\n\n{text}" if where else text)
    return "\n\n".join(parts)


def documents(root: type[BaseModel]) -> list[tuple[str, type[BaseModel]]]:
    """The document and those inside it, each once, with the path of keys that leads there."""
    found: dict[type[BaseModel], str] = {root: ""}
    waiting = [root]
    while waiting:
        here = waiting.pop(0)
        for name, field in here.model_fields.items():
            for inner in inside(field.annotation):
                if inner not in found:
                    path = f"{found[here]}.{name}".strip(".")
                    kind = inner.model_fields.get("stage")
                    found[inner] = f"{path}: {get_args(kind.annotation)[0]}" if kind else path
                    waiting.append(inner)
    return [(where, document) for document, where in found.items()]


def inside(annotation: Any) -> Iterator[type[BaseModel]]:
    """The documents that a type mentions."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from inside(part)


def table(document: type[BaseModel]) -> str:
    """The keys in order, as a Markdown table."""
    schema, told = document.model_json_schema(), meanings(document)
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, field in document.model_fields.items():
        cells = (f"`{name}`", in_words(schema["properties"][name], schema), default(field), told.get(name, ""))
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(rows)


def summary(document: type[BaseModel]) -> str:
    """The docstring before its sections."""
    return single(inspect.cleandoc(document.__doc__ or "").split("\n\nAttributes:")[0])


def meanings(document: type[BaseModel]) -> dict[str, str]:
    """What the fields' descriptions, or the docstrings of the model and its bases, say of each key."""
    found = {n: text[0].lower() + text[1:] for n, f in document.model_fields.items() if (text := f.description)}
    for cls in reversed(document.__mro__):
        if issubclass(cls, BaseModel) and "Attributes:" in (cls.__doc__ or ""):
            text = inspect.cleandoc(cls.__doc__ or "")
            for section in Docstring(text).parse("google", warn_unknown_params=False, warnings=False):
                if isinstance(section, DocstringSectionAttributes):
                    found |= {
                        n.strip(): single(told.description) for told in section.value for n in told.name.split(",")
                    }
    return found


def single(text: str) -> str:
    """Docstring text as one line of Markdown."""
    return re.sub(r"``([^`]*)``", r"`\1`", " ".join(text.split()))


def default(field: FieldInfo) -> str:
    """The default, or that there is none."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, BaseModel):
        return "" if value is None else "see below"
    return f"`{json.dumps(value, default=list, ensure_ascii=False)}`"


def in_words(schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """What a value may be."""
    if "$ref" in schema:
        return in_words(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(in_words(one, root) for one in choices if one.get("type") != "null"))
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{json.dumps(one).strip(chr(34))}`" for one in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind == "array":
        items = schema.get("prefixItems")
        what = ", ".join(in_words(one, root) for one in items) if items else in_words(schema.get("items", {}), root)
        return f"list of {what}" if what else "list"
    if kind == "object":
        named = schema.get("additionalProperties")
        return f"by name: {in_words(named, root)}" if isinstance(named, dict) and named else "keys and values"
    if kind == "string" and schema.get("format") == "path":
        return "path"
    bounds = [f"{sign} {schema[key]:g}" for key, sign in SIGNS.items() if key in schema]
    return " ".join([WORDS.get(kind or "", "any value"), ", ".join(bounds)]).strip()
