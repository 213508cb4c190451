"""What lets devices in: codes, which agents trade for tokens. Both are known by their hashes only."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from sqlalchemy import Engine, delete, select, update
from sqlalchemy.orm import Session

from ofa_deploy.json_types import JSON
from ofa_deploy.store.database import reading, writing
from ofa_deploy.store.schema import CodeRow, DeviceRow, TokenRow, utc_now
from ofa_deploy.store.views import Token


class Access:
    """The codes and tokens of one database's devices. Every method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def register(self, name: str, profile: Mapping[str, JSON], code: str, expires_at: str, queue: str = "") -> None:
        """Add a device, or change the profile of one, and let the agent with a code (given as its hash) enrol as it.

        The agent that a command starts, for a queue of its own, does not make its device a registered one.
        """
        with writing(self._engine) as session:
            row = add_device(session, name)
            row.revoked_at = None
            if not queue:
                row.profile = dict(profile)
            session.flush()
            session.add(CodeRow(hash=code, device=name, queue=queue, expires_at=expires_at))

    def enrol(self, code: str, secret: str, facts: Mapping[str, JSON]) -> str | None:
        """Trade a code for a token, both given as hashes. Returns the device, or None where the code is no good.

        The same code with the same secret is answered as before, so that an answer may get lost.
        """
        with writing(self._engine) as session:
            row = session.get(CodeRow, code, with_for_update=True)
            if row is None or row.expires_at < utc_now():
                return None
            if row.secret_hash is None and session.get(TokenRow, secret) is None:
                row.secret_hash = secret
                session.add(TokenRow(hash=secret, device=row.device, queue=row.queue))
                device = session.get_one(DeviceRow, row.device)
                device.seen_at, device.facts = utc_now(), dict(facts) or device.facts
                return row.device
            return row.device if hmac.compare_digest(row.secret_hash or "", secret) else None

    def queue_of(self, name: str, secret: str) -> str | None:
        """The queue to which a device's token, given as its hash, is bound; None where it has no such token (any more).

        All tokens are compared, so that the time it takes tells nothing.
        """
        query = select(TokenRow.hash, TokenRow.queue)
        query = query.where(TokenRow.device == name, TokenRow.revoked_at.is_(None))
        with reading(self._engine) as session:
            tokens = session.execute(query).all()
        return next(iter([queue for known, queue in tokens if hmac.compare_digest(known, secret)]), None)

    def tokens(self, name: str) -> list[Token]:
        """A device's tokens, newest first."""
        query = select(TokenRow).filter_by(device=name).order_by(TokenRow.created_at.desc())
        with reading(self._engine) as session:
            return [Token(row.created_at, row.revoked_at) for row in session.scalars(query)]

    def revoke(self, name: str) -> None:
        """End a device's tokens and codes at once."""
        now = utc_now()
        with writing(self._engine) as session:
            session.execute(update(DeviceRow).where(DeviceRow.name == name).values(revoked_at=now))
            live = update(TokenRow).where(TokenRow.device == name, TokenRow.revoked_at.is_(None))
            session.execute(live.values(revoked_at=now))
            session.execute(delete(CodeRow).where(CodeRow.device == name))


def add_device(session: Session, name: str) -> DeviceRow:
    """A device's row, which is made where there is none."""
    row = session.get(DeviceRow, name, with_for_update=True)
    if row is None:
        row = DeviceRow(name=name, facts={})
        session.add(row)
        session.flush()
    return row
