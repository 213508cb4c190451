"""``manifest.json``: what a bundle consists of."""

from __future__ import annotations

from pydantic import Field

from ofa_deploy.documents.json_document import Document, FreeObject, Whole, Words


class ListedFile(Document):
    """A file of the bundle: its hash, and its size in bytes. Both must be there."""

    sha256: Words
    bytes: Whole


class Manifest(Document):
    """The whole manifest.

    Attributes:
        files: by name.
        provenance: the report's, with the hashes of what the bundle was made from under ``inputs_sha256``.
    """

    version: Whole = Field(default=1, alias="schema")
    files: dict[str, ListedFile]
    provenance: FreeObject = {}
