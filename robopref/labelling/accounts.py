"""Who may do what: annotators, the secret links they come with, and the sessions those become. Only hashes are stored."""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from dataclasses import dataclass

from robopref.arrays import InputError
from robopref.data.eventlog import EventLog

_TABLES = (
    "CREATE TABLE IF NOT EXISTS annotator(id TEXT PRIMARY KEY, role TEXT NOT NULL, created_ms INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS secret(sha256 TEXT PRIMARY KEY, annotator TEXT NOT NULL REFERENCES annotator(id), "
    "kind TEXT NOT NULL, created_ms INTEGER NOT NULL, revoked INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID",
)
ROLES = ("annotator", "organiser")
SESSION_MS = 30 * 24 * 3600 * 1000


@dataclass(frozen=True)
class Person:
    """Who a request comes from."""

    id: str
    role: str


class Accounts:
    """Annotators of one project. A name is any printable text of 1 to 80 characters, in any script."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        with log.write() as db:
            for table in _TABLES:
                db.execute(table)

    def enrol(self, name: str, role: str = "annotator") -> str:
        """Make an annotator (or give one another role) and return a new secret for their link; earlier links stay valid."""
        name = check_name(name)
        with self._log.write() as db:
            db.execute(
                "INSERT INTO annotator VALUES (?, ?, ?) ON CONFLICT(id) DO UPDATE SET role = excluded.role",
                (name, role, self._log.now()),
            )
        return self._secret(name, "token")

    def login(self, token: str) -> str | None:
        """A new session for the secret of a link, or None."""
        person = self._whose(token, "token")
        return self._secret(person.id, "session") if person else None

    def person(self, session: str) -> Person | None:
        """Whose session this is, or None when there is no such, it is too old, or it was revoked."""
        return self._whose(session, "session")

    def logout(self, session: str) -> None:
        """End one session."""
        with self._log.write() as db:
            db.execute("UPDATE secret SET revoked = 1 WHERE sha256 = ?", (_hashed(session),))

    def revoke(self, name: str) -> int:
        """End all links and sessions of an annotator; returns how many. Their answers stay."""
        name = check_name(name)
        with self._log.write() as db:
            return db.execute("UPDATE secret SET revoked = 1 WHERE annotator = ? AND revoked = 0", (name,)).rowcount

    def people(self) -> list[Person]:
        """Everybody enrolled, by name."""
        return enrolled(self._log)

    def _secret(self, name: str, kind: str) -> str:
        secret = secrets.token_urlsafe(32)
        with self._log.write() as db:
            db.execute("INSERT INTO secret VALUES (?, ?, ?, ?, 0)", (_hashed(secret), name, kind, self._log.now()))
        return secret

    def _whose(self, secret: str, kind: str) -> Person | None:
        row = self._log.db.execute(
            "SELECT a.id, a.role, s.created_ms FROM secret s JOIN annotator a ON a.id = s.annotator "
            "WHERE sha256 = ? AND kind = ? AND revoked = 0",
            (_hashed(secret), kind),
        ).fetchone()
        if row is None or (kind == "session" and self._log.now() - row["created_ms"] > SESSION_MS):
            return None
        return Person(row["id"], row["role"])


def enrolled(log: EventLog) -> list[Person]:
    """Everybody in a project's file, by name."""
    return [Person(r["id"], r["role"]) for r in log.db.execute("SELECT id, role FROM annotator ORDER BY id")]


def check_name(name: str) -> str:
    """A name in the one form in which it is kept (NFC). Raises `InputError` for one that nobody could tell apart or type.

    Persian, Sinhala and others join letters, or keep them apart, with characters that are not printed.
    """
    name = unicodedata.normalize("NFC", name)
    seen = name.translate({ord(joiner): None for joiner in "\u200c\u200d"})
    if not 1 <= len(name) <= 80 or not seen or not seen.isprintable() or name != name.strip() or set("<>") & set(name):
        raise InputError(f"annotator: got the name {name!r}, wanted 1 to 80 printable characters without < and >.")
    return name


def _hashed(secret: str) -> str:
    # The secrets are 256 random bits, so a plain hash is enough: there is nothing to guess.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
