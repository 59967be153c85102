"""The variables of a ledger: its keys, its database, its archive."""

from __future__ import annotations

from typing import Final

from kiki.settings.address import database_url, host_name, http_url, without_credentials
from kiki.settings.secret import Secret
from kiki.settings.values import (
    archive_url,
    command,
    path,
    printable,
    replica_name,
    seconds_float,
    user_name,
    whole_number,
)
from kiki.settings.variable import Variable

KEY_VARIABLES: Final = (
    Variable(
        "KIKI_MASTER_KEY_FILE", "master_key_file", path, None,
        "file (mode 0600) of the key that opens everything personal; unset: master.key in KIKI_DATA_DIR, made at the first start",
    ),
    Variable("KIKI_MASTER_KEY", "master_key", Secret, None, "that key itself: 32 random bytes in base64 or hexadecimal", None),
    Variable("KIKI_MASTER_KEY_COMMAND", "master_key_command", command, None, "command that prints it, for a KMS or a vault", None),
)  # fmt: skip


DATABASE_VARIABLES: Final = (
    Variable(
        "DATABASE_URL", "database_url", database_url, None,
        "postgresql://user:password@host:port/name of the shared ledger; unset: SQLite in KIKI_DATA_DIR", without_credentials,
    ),
    Variable("DB_HOST", "db_host", host_name, None, "the same in parts: host; DATABASE_URL goes first"),
    Variable("DB_PORT", "db_port", whole_number(1, 65535), "5432", "port of PostgreSQL"),
    Variable("DB_NAME", "db_name", printable, "kiki", "name of the database"),
    Variable("DB_USER", "db_user", printable, "kiki", "user of the database"),
    Variable("DB_PASSWORD", "db_password", Secret, None, "password of that user", None),
    Variable("POSTGRES_PASSWORD", "postgres_password", Secret, None, "the same under the guide's name", None),
    Variable("KIKI_REPLICA", "replica", replica_name, None, "stable name of this replica, which owns one chain; syncshield-*: SyncShield takes the first number that nobody has; unset: the host's name"),
)  # fmt: skip


ARCHIVE_VARIABLES: Final = (
    Variable(
        "KIKI_ARCHIVE", "archive", archive_url, None,
        "where sealed segments of the ledger go: a directory, or s3://, gs:// or az://bucket/prefix", without_credentials,
    ),
    Variable("KIKI_SEGMENT_SECONDS", "segment_seconds", seconds_float(24 * 3600), "60", "how long a segment gathers entries at most"),
    Variable("KIKI_SEGMENT_ENTRIES", "segment_entries", whole_number(256, 10**7), "65536", "how many entries a segment holds at most"),
    Variable("KIKI_WITNESS_URL", "witness_url", http_url, None, "C2SP witness that cosigns checkpoints"),
    Variable("KIKI_WITNESS_KEY", "witness_key", user_name, None, "verifier key of that witness"),
    Variable("KIKI_TSA_URL", "tsa_url", http_url, None, "RFC 3161 service that stamps checkpoints"),
    Variable("KIKI_TSA_ROOTS_FILE", "tsa_roots_file", path, None, "certificates that it must lead to, PEM; unset: those of the system"),
)  # fmt: skip
