"""The tables of events.db: one append-only table of events, and the cost ledger as views over it, so that the two can never disagree.

events    what happened, in order; `detail` is JSON
ledger    one row per answer of a site, and per round one of the coordinator (site NULL): bytes, seconds, processor seconds, memory
stages    the wall seconds of the ledger's rows by stage

A round that was tried twice, or was begun again after a crash, is in the ledger as often as it was paid for. docs/coordinator.md
explains the columns and has queries.
"""

from typing import Final

from gmmas_schema.events import EventKind

APPLICATION_ID: Final = 0x474D4D41
"""Says in the file's header that these are events of this project ("GMMA")."""
VERSION: Final = 1

ANSWERS: Final = (EventKind.SITE_JOINED, EventKind.REPLY_ACCEPTED, EventKind.REPLY_REFUSED, EventKind.REPLY_MISSING)
"""Kinds of events that tell what an answer of a site cost."""

_KINDS = ", ".join(f"'{kind}'" for kind in ANSWERS)

# No foreign text in these statements.
TABLES: Final = f"""
CREATE TABLE events (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    time    REAL NOT NULL,
    kind    TEXT NOT NULL,
    round   INTEGER,
    site    TEXT,
    code    TEXT,
    message TEXT NOT NULL,
    detail  TEXT NOT NULL CHECK (json_valid(detail))
);
CREATE TRIGGER events_refuse_update BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_refuse_delete BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
-- INSERT OR REPLACE would delete without asking the trigger above.
CREATE TRIGGER events_refuse_replace BEFORE INSERT ON events WHEN EXISTS (SELECT 1 FROM events WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;

CREATE VIEW ledger AS
SELECT id AS event, time, round, site,
    coalesce(json_extract(detail, '$.action'), 'query') AS action,
    json_extract(detail, '$.split') AS split,
    coalesce(json_extract(detail, '$.outcome'),
        CASE kind WHEN 'reply_missing' THEN 'missing' WHEN 'reply_refused' THEN 'refused' ELSE 'accepted' END) AS outcome,
    code,
    coalesce(json_extract(detail, '$.bytes_down'), 0) AS bytes_down,
    coalesce(json_extract(detail, '$.bytes_up'), 0) AS bytes_up,
    json_extract(detail, '$.round_trip_s') AS round_trip_s,
    (SELECT sum(value) FROM json_each(detail, '$.seconds')) AS seconds,
    nullif(json_extract(detail, '$.cpu_seconds'), 0) AS cpu_seconds,
    nullif(json_extract(detail, '$.peak_memory_mib'), 0) AS peak_memory_mib
FROM events WHERE kind IN ({_KINDS})
UNION ALL
SELECT events.id, time, round, letter.key, 'sum', NULL,
    json_extract(letter.value, '$.outcome'), json_extract(letter.value, '$.code'),
    json_extract(letter.value, '$.bytes_down'), json_extract(letter.value, '$.bytes_up'), json_extract(letter.value, '$.round_trip_s'),
    NULL, NULL, NULL
FROM events, json_each(events.detail, '$.sites') AS letter WHERE kind = '{EventKind.SUM_PHASE}'
UNION ALL
SELECT id, time, round, NULL, 'coordinate', NULL, NULL, NULL, NULL, NULL, NULL,
    (SELECT sum(value) FROM json_each(detail, '$.coordinator.seconds')),
    json_extract(detail, '$.coordinator.cpu_seconds'),
    json_extract(detail, '$.coordinator.peak_memory_mib')
FROM events WHERE json_type(detail, '$.coordinator') = 'object';

CREATE VIEW stages AS
SELECT events.id AS event, round, site, stage.key AS stage, stage.value AS seconds
FROM events, json_each(events.detail, '$.seconds') AS stage WHERE kind IN ({_KINDS})
UNION ALL
SELECT events.id, round, NULL, stage.key, stage.value
FROM events, json_each(events.detail, '$.coordinator.seconds') AS stage;

PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""  # noqa: S608
