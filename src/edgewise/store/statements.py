"""The SQL of the SQLite store.

Batches go in through `json_each` (columns) and one blob of bodies, whose places are `offset << 30 | length` (see `rows`); pages come out
through `group_concat` of bodies, which keeps bytes as they are.
"""

from typing import Final

# ---- the writer's ----

READ_STATE: Final = """
    SELECT epoch, revision, batches, changes, change_bytes, compacted, event_number, frame_number, frame_bytes FROM state
"""

WRITE_STATE: Final = """
    UPDATE state SET epoch = ?, revision = ?, batches = ?, changes = ?, change_bytes = ?, compacted = ?, event_number = ?,
        frame_number = ?, frame_bytes = ?
"""

LOOK_UP: Final = """
    SELECT count(*), CAST(group_concat(d.body, '') AS BLOB)
    FROM json_each(?1) AS j CROSS JOIN documents AS d ON d.key = j.value
"""

PUT_DOCUMENTS: Final = """
    INSERT INTO documents (key, body)
    SELECT j.key, substr(?2, j.value >> 30, j.value & 1073741823) FROM json_each(?1) AS j WHERE true
    ON CONFLICT (key) DO UPDATE SET body = excluded.body
"""

DELETE_DOCUMENTS: Final = """
    DELETE FROM documents WHERE key IN (SELECT value FROM json_each(?1))
"""

PUT_CHANGES: Final = """
    INSERT INTO changes (revision, body, count)
    SELECT ?3 + j.key,
        substr(?2, json_extract(j.value, '$[0]') >> 30, json_extract(j.value, '$[0]') & 1073741823),
        json_extract(j.value, '$[1]')
    FROM json_each(?1) AS j
"""

PUT_EVENTS: Final = """
    INSERT INTO events (number, body, source, about)
    SELECT ?3 + j.key,
        substr(?2, json_extract(j.value, '$[0]') >> 30, json_extract(j.value, '$[0]') & 1073741823),
        json_extract(j.value, '$[1]'), json_extract(j.value, '$[2]')
    FROM json_each(?1) AS j
"""

DELETE_EVENTS: Final = """
    DELETE FROM events WHERE number <= ?1
"""

PUT_FRAMES: Final = """
    INSERT INTO frames (number, body, device, ends, starts, size)
    SELECT ?3 + j.key,
        substr(?2, json_extract(j.value, '$[0]') >> 30, json_extract(j.value, '$[0]') & 1073741823),
        json_extract(j.value, '$[1]'), json_extract(j.value, '$[2]'), json_extract(j.value, '$[3]'), json_extract(j.value, '$[4]')
    FROM json_each(?1) AS j
"""

DELETE_FRAMES: Final = """
    DELETE FROM frames WHERE number <= ?1
"""

OLDEST_FRAMES: Final = """
    SELECT max(number), coalesce(sum(size), 0)
    FROM (
        SELECT number, size, sum(size) OVER (ORDER BY number) - size AS size_before
        FROM (SELECT number, size FROM frames ORDER BY number LIMIT ?2)
    )
    WHERE size_before < ?1
"""
"""The fewest oldest frames whose removal takes away ?1 bytes, or the oldest ?2."""

DELETE_CHANGES: Final = """
    DELETE FROM changes WHERE revision <= ?1
"""

OLDEST_CHANGES: Final = """
    SELECT max(revision), coalesce(sum(count), 0), coalesce(sum(size), 0)
    FROM (
        SELECT revision, count, size, sum(count) OVER w - count AS count_before, sum(size) OVER w - size AS size_before
        FROM (SELECT revision, count, length(body) AS size FROM changes ORDER BY revision LIMIT ?3)
        WINDOW w AS (ORDER BY revision)
    )
    WHERE count_before < ?1 OR size_before < ?2
"""
"""The fewest oldest revisions whose removal takes away ?1 changes and ?2 bytes, or the oldest ?3."""

PUT_MARKS: Final = """
    INSERT INTO marks (agent, incarnation, lane, number, dropped, written)
    SELECT json_extract(j.value, '$[0]'), json_extract(j.value, '$[1]'), json_extract(j.value, '$[2]'),
        json_extract(j.value, '$[3]'), json_extract(j.value, '$[4]'), ?2
    FROM json_each(?1) AS j WHERE true
    ON CONFLICT (agent, incarnation, lane) DO UPDATE
    SET number = max(number, excluded.number), dropped = max(dropped, excluded.dropped), written = excluded.written
"""

FORGET_MARKS: Final = """
    DELETE FROM marks WHERE agent = ?1 AND incarnation NOT IN (
        SELECT incarnation FROM marks WHERE agent = ?1 GROUP BY incarnation ORDER BY max(written) DESC LIMIT ?2
    )
"""

LATEST_INCARNATIONS: Final = """
    SELECT json_group_object(agent, incarnation) FROM (SELECT agent, incarnation, max(written) FROM marks GROUP BY agent)
"""

TOUCH: Final = """
    INSERT INTO liveness (agent, seen) SELECT j.key, j.value FROM json_each(?1) AS j WHERE true
    ON CONFLICT (agent) DO UPDATE SET seen = max(seen, excluded.seen)
"""

# ---- the readers' ----

GET: Final = """
    SELECT 1, body FROM documents WHERE key = ?1
"""

LIST: Final = """
    SELECT (SELECT revision FROM state), count(*), CAST(group_concat(body, '') AS BLOB),
        max(key) < (SELECT max(key) FROM documents WHERE key < ?2)
    FROM (
        SELECT key, body, sum(length(body)) OVER (ORDER BY key) - length(body) AS size_before
        FROM (SELECT key, body FROM documents WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?3)
    )
    WHERE size_before < ?4
"""
"""The last column: more documents follow."""

CHANGES: Final = """
    SELECT (SELECT revision FROM state), (SELECT compacted FROM state), count(*), CAST(group_concat(body, '') AS BLOB)
    FROM (
        SELECT body, sum(count) OVER w - count AS count_before, sum(length(body)) OVER w - length(body) AS size_before
        FROM (SELECT revision, count, body FROM changes WHERE revision > ?1 ORDER BY revision LIMIT ?2)
        WINDOW w AS (ORDER BY revision)
    )
    WHERE count_before < ?2 AND size_before < ?3
"""

EVENTS: Final = """
    SELECT count(*), CAST(group_concat(body, '') AS BLOB), json_group_array(number)
    FROM (
        SELECT number, body, sum(length(body)) OVER (ORDER BY number) - length(body) AS size_before
        FROM (
            SELECT number, body FROM events
            WHERE number > ?3 AND (?4 IS NULL OR source = ?4) AND (?5 IS NULL OR substr(about, 1, length(?5)) = ?5)
            ORDER BY number LIMIT ?1
        )
    )
    WHERE size_before < ?2
"""

RECENT_EVENTS: Final = """
    SELECT count(*), CAST(group_concat(body, '') AS BLOB), json_group_array(number)
    FROM (
        SELECT number, body, sum(length(body)) OVER (ORDER BY number DESC) - length(body) AS size_before
        FROM (
            SELECT number, body FROM events
            WHERE (?3 IS NULL OR source = ?3) AND (?4 IS NULL OR substr(about, 1, length(?4)) = ?4)
            ORDER BY number DESC LIMIT ?1
        )
    )
    WHERE size_before < ?2
"""

FRAMES: Final = """
    SELECT count(*), CAST(group_concat(body, '') AS BLOB), json_group_array(number)
    FROM (
        SELECT number, body, sum(length(body)) OVER (ORDER BY ends, number) - length(body) AS size_before
        FROM (
            SELECT number, ends, body FROM frames WHERE device = ?3 AND ends >= ?4 AND starts <= ?5 ORDER BY ends, number LIMIT ?1
        )
    )
    WHERE size_before < ?2
"""

MARKS: Final = """
    SELECT json_group_array(json_array(agent, incarnation, lane, number, dropped))
    FROM (SELECT agent, incarnation, lane, number, dropped FROM marks WHERE agent = ?1 ORDER BY written)
"""

ALL_MARKS: Final = """
    SELECT json_group_array(json_array(m.agent, m.incarnation, m.lane, m.number, m.dropped))
    FROM marks AS m
    JOIN (SELECT agent, incarnation, max(written) FROM marks GROUP BY agent) AS latest USING (agent, incarnation)
"""

LIVENESS: Final = """
    SELECT json_group_object(agent, seen) FROM liveness
"""
