"""The tables of a ledger in PostgreSQL, who may do what with them, and the trigger that keeps entries as they are."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

_TABLES = """
CREATE TABLE {schema}.chain (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    fence bigint NOT NULL
);
COMMENT ON COLUMN {schema}.chain.fence IS 'raised by each process that claims the chain; only the latest may write';

CREATE TABLE {schema}.entry (
    chain bigint NOT NULL, seq bigint NOT NULL, body bytea NOT NULL, PRIMARY KEY (chain, seq)
);

CREATE TABLE {schema}.projection (
    chain bigint NOT NULL, space text COLLATE "C" NOT NULL, key bytea NOT NULL, value bytea NOT NULL,
    PRIMARY KEY (chain, space, key)
);

CREATE TABLE {schema}.shared (
    space text COLLATE "C" NOT NULL, key bytea NOT NULL, value bytea NOT NULL, PRIMARY KEY (space, key)
);
COMMENT ON TABLE {schema}.shared IS 'what belongs to all chains: consents, requests, and the wrapped keys of persons, '
    'which need backups with a short horizon';

CREATE TABLE {schema}.shared_window (name text COLLATE "C" PRIMARY KEY, epoch bigint NOT NULL);
COMMENT ON TABLE {schema}.shared_window IS 'the epoch of each shared budget window, under which entries may be appended';
"""

# The window's lock is shared by all who append and exclusive for who raises the epoch: once that returns, no entry
# under an older epoch is on its way any more. The fence's row lock does the same for a claim.
_ADMIT = """
CREATE FUNCTION {schema}.admit(of_chain bigint, held_fence bigint, of_window text, held_epoch bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    found_value bigint;
BEGIN
    SELECT fence INTO found_value FROM {schema}.chain WHERE id = of_chain FOR SHARE;
    IF found_value IS DISTINCT FROM held_fence THEN
        RAISE EXCEPTION 'another process has claimed this chain' USING ERRCODE = 'KI001';
    END IF;
    IF of_window IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock_shared(hashtextextended('{schema}.epoch/' || of_window, 0));
        SELECT epoch INTO found_value FROM {schema}.shared_window WHERE name = of_window;
        IF found_value > held_epoch THEN
            RAISE EXCEPTION 'the shared window % is in epoch % now, this was decided in epoch %',
                of_window, found_value, held_epoch USING ERRCODE = 'KI002';
        END IF;
    END IF;
END $$;

CREATE FUNCTION {schema}.raise_epoch(of_window text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    raised bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('{schema}.epoch/' || of_window, 0));
    INSERT INTO {schema}.shared_window AS known (name, epoch) VALUES (of_window, 1)
        ON CONFLICT (name) DO UPDATE SET epoch = known.epoch + 1 RETURNING epoch INTO raised;
    RETURN raised;
END $$;
"""

# A right can be granted by mistake; the trigger stays. Whoever owns the table can remove both, which is why an
# independent witness of the checkpoints is worth having.
_KEPT = """
CREATE FUNCTION {schema}.keep_entries() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_user = 'kiki_pruner' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'entries of a ledger are never changed (%)', TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER keep_entries BEFORE UPDATE OR DELETE OR TRUNCATE ON {schema}.entry
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.keep_entries();
"""

_GRANTS = """
REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {schema} FROM PUBLIC;
GRANT USAGE ON SCHEMA {schema} TO kiki_writer, kiki_pruner;
GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO kiki_writer;
GRANT INSERT, UPDATE (fence) ON {schema}.chain TO kiki_writer;
GRANT INSERT ON {schema}.entry TO kiki_writer;
GRANT INSERT, UPDATE, DELETE ON {schema}.projection, {schema}.shared TO kiki_writer;
GRANT INSERT, UPDATE ON {schema}.shared_window TO kiki_writer;
GRANT EXECUTE ON FUNCTION {schema}.admit, {schema}.raise_epoch TO kiki_writer;
GRANT SELECT (chain, seq), DELETE ON {schema}.entry TO kiki_pruner;
"""


def upgrade(schema: str) -> None:
    """Make everything."""
    for part in (_TABLES, _ADMIT, _KEPT, _GRANTS):
        op.execute(part.format(schema=schema).replace(":", r"\:"))
