"""Brings the schema of a ledger in PostgreSQL to what this version of kiki needs.

Replicas of the old and of the new version work side by side while a fleet is updated, so a migration only ever
adds: a table, a function, a column that may be null or has a default. Nothing that a released version reads or
writes is renamed, removed or given another meaning, and a schema that is newer than this code is accepted.
Revisions are numbers in rising order.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

from kiki.errors import DatabaseError
from kiki.ledger.postgres_connection import Session, identifier_of, psycopg, sql

HEAD: Final = "0001"
"""The revision that this version needs at least: the newest in `migrations/versions`."""
WRITER: Final = "kiki_writer"
PRUNER: Final = "kiki_pruner"

_MIGRATIONS: Final = Path(__file__).with_name("migrations")
_KNOWN_ROLES: Final = sql.SQL("SELECT rolname FROM pg_roles WHERE rolname IN ({}, {})").format(WRITER, PRUNER)


def current_revision(session: Session, schema: str) -> str | None:
    """The revision of a schema, None when there is none yet. Whoever may read the ledger may ask."""
    exists = session.query(
        sql.SQL("SELECT FROM pg_class WHERE relname = 'alembic_version' AND relnamespace = to_regnamespace({})").format(
            schema
        )
    )
    if not exists:
        return None
    rows = session.query(sql.SQL("SELECT version_num FROM {}.alembic_version").format(identifier_of(schema)))
    return rows[0][0] if rows else None


def prepare(session: Session, schema: str) -> None:
    """Leave the session in the role of a writer, on a schema that is new enough; migrate it where it is not.

    Raises `DatabaseError`, with the statements for an administrator, when the login may not do what is needed.
    """
    if _became_writer(session) and (current_revision(session, schema) or "") >= HEAD:
        return
    session.query(sql.SQL("RESET ROLE").format())
    _migrate(session, schema)
    if not _became_writer(session):
        raise _not_allowed(session, schema, f"the login is no member of {WRITER}")


def _became_writer(session: Session) -> bool:
    allowed = session.query(
        sql.SQL("SELECT FROM pg_roles WHERE rolname = {0} AND pg_has_role(session_user, oid, 'MEMBER')").format(WRITER)
    )
    if allowed:
        session.query(sql.SQL("SET ROLE {}").format(sql.Identifier(WRITER)))
    return bool(allowed)


def _migrate(session: Session, schema: str) -> None:
    # Loaded only when there is something to do: the two take longer than everything else at a start.
    logging.getLogger("alembic.runtime.plugins").setLevel(
        logging.WARNING
    )  # a line for each of its parts, when it is loaded
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import StaticPool

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    # The connection is handed over ready, so that no URL with a password gets into anything that prints.
    engine = create_engine("postgresql+psycopg://", creator=session.connect_once, poolclass=StaticPool)
    try:
        with engine.begin() as connection:
            raw: Any = connection.connection.driver_connection
            # Others that start at the same moment wait here, and then find that nothing is left to do.
            raw.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"{schema}.migration"])
            _make_roles(raw)
            if raw.execute("SELECT to_regnamespace(%s)", [schema]).fetchone() == (None,):
                raw.execute(sql.SQL("CREATE SCHEMA {}").format(identifier_of(schema)))
            config.attributes.update(connection=connection, schema=schema)
            command.upgrade(config, "head")
    except psycopg.errors.InsufficientPrivilege as error:
        raise _not_allowed(session, schema, error.diag.message_primary or "") from error
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise _not_allowed(session, schema, error.orig.diag.message_primary or "") from error
        raise session.translated(error.orig if isinstance(error.orig, Exception) else error) from error
    except psycopg.Error as error:
        raise session.translated(error) from error
    finally:
        engine.dispose()


def _make_roles(raw: Any) -> None:
    for role in (WRITER, PRUNER):
        found = raw.execute("SELECT pg_has_role(session_user, oid, 'MEMBER') FROM pg_roles WHERE rolname = %s", [role])
        is_member = found.fetchone()
        if is_member is None:
            raw.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
        if is_member != (True,):
            raw.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(role)))


def _not_allowed(session: Session, schema: str, said: str) -> DatabaseError:
    login = session.login.replace('"', '""')
    roles = [role for (role,) in session.query(_KNOWN_ROLES)]
    owner = session.query(
        sql.SQL("SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = {}").format(schema)
    )
    needed = [f"CREATE ROLE {role} NOLOGIN;" for role in (WRITER, PRUNER) if role not in roles]
    needed.append(f'GRANT {WRITER}, {PRUNER} TO "{login}";')
    if not owner:
        needed.append(f'CREATE SCHEMA {schema} AUTHORIZATION "{login}";')
    elif owner[0][0] != session.login:
        needed.append(f'GRANT "{owner[0][0]}" TO "{login}";  -- or start once with a login that owns the schema')
    return DatabaseError(
        [f"the login may not set up the ledger in {session.place}: {said}"],
        hint="\n  ".join(["an administrator runs, once, in this database:", *needed]),
    )
