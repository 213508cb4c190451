"""HTML and SVG elements. Text is escaped here and nowhere else, so that nothing from JSON can become markup."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from urllib.parse import quote, urlsplit

VOID = {"meta", "br"}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = object  # Markup, a text, a number, None for nothing, or an iterable of these


def element(tag: str, *children: Child, **attributes: object) -> Markup:
    """``<tag attributes>children</tag>``.

    An attribute's name loses a trailing underscore, other underscores become hyphens; None leaves it out.
    """
    head = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{head}>" if tag in VOID else f"<{tag}{head}>{join(children)}</{tag}>")


def join(children: Iterable[Child]) -> Markup:
    """Children one after the other."""
    return Markup("".join(map(_render, children)))


def _render(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return str(child)
    if isinstance(child, (list, tuple)):
        return join(child)
    return escape(_text(child))


def _text(value: object) -> str:
    """Numbers as coordinates with two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def link(text: str, address: object) -> Child:
    """A link to a file beside or below this page; anything else is shown as plain text."""
    if not isinstance(address, str) or not address:
        return text
    try:
        parts = urlsplit(address)
    except ValueError:
        return text
    if parts.scheme or parts.netloc or address.startswith(("/", "\\")):
        return text
    return element("a", text, href=quote(address))
