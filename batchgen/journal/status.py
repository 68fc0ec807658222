"""The status of each row: the six words, their orders, and the SQL that works them out.

`ROW_STATE` is a temporary view, and needs the function `is_accepted` of its connection. Every
connection therefore works statuses out in the same way, whatever version wrote the file, and a plan
may shadow the tables `prompts` and `rows` with temporary ones and ask about rows that are not
staged."""

from __future__ import annotations

from typing import Literal, get_args

Status = Literal["succeeded", "incomplete", "failed", "blocked", "pending", "outdated"]

# The order in which people read them: what is done, what went wrong, what is still to do.
STATUSES: tuple[Status, ...] = get_args(Status)

# If one table line stands for all turns of a row, it has the status that comes first here. A failed
# turn comes before the turns that it blocks, because it is the one to fix.
WORST_FIRST: tuple[Status, ...] = (
    "failed",
    "incomplete",
    "pending",
    "outdated",
    "blocked",
    "succeeded",
)

# How many runs may end in a passing failure of a row under one fingerprint. After the last of them
# the row has failed for good.
MAX_TRIES = 3

# The state of each row by its own outcome alone, without the turns before it. Finish reasons that
# the job accepts count as success here but not in what is recorded, so the job may change
# `output.accept` without paying for anything again.
ROW_STATE = f"""
CREATE TEMP TABLE missing(ident TEXT, key BLOB, PRIMARY KEY(ident, key));
CREATE TEMP VIEW row_state AS
SELECT r.*, o.status AS recorded, o.finish_reason, o.reason, o.passing, o.tries, o.redo,
    o.status IS NOT NULL AND (o.lost OR m.ident IS NOT NULL) AS lost,
    CASE
        WHEN r.error IS NOT NULL THEN 'failed'
        WHEN o.status IS NULL OR o.lost OR m.ident IS NOT NULL THEN 'pending'
        WHEN o.redo THEN iif(o.status = 'failed', 'pending', 'outdated')
        WHEN o.reason IS NOT NULL THEN 'failed'
        WHEN o.status = 'incomplete' AND is_accepted(o.finish_reason) THEN 'succeeded'
        ELSE o.status END AS verdict,
    r.error IS NULL AND o.status = 'failed' AND NOT o.redo AND o.passing AND o.tries < {MAX_TRIES}
        AS retried
FROM rows r LEFT JOIN outcomes o ON o.ident = r.ident AND o.key = r.key
    LEFT JOIN missing m ON m.ident = r.ident AND m.key = r.key;
"""


def state(page: str | None = None) -> str:
    """The WITH clause that defines `state`: each row with its status.

    page: a SELECT of seq, for questions about few rows. It becomes the table `page`, and only the
        conversations of its rows are read.

    It also says how far each conversation has come: `failed_turn` is the first turn that failed or
    is incomplete (later turns are blocked), `last_turn` the first such turn that no run retries (no
    later turn is sent), and `next_turn` (of the prompt `next_n`) the first turn that has not
    succeeded. Each is NULL if there is no such turn.
    """
    # Worked out once for each conversation, not for each turn: a conversation may be thousands of
    # turns long.
    turns, paged = "row_state r WHERE r.conversation IS NOT NULL", ""
    if page is not None:
        paged = f"""page(seq) AS ({page}),
            paged AS (SELECT DISTINCT conversation, axes FROM rows
                WHERE conversation IS NOT NULL AND seq IN (SELECT seq FROM page)),"""
        # CROSS JOIN makes SQLite begin with the few conversations of the page.
        turns = (
            "paged CROSS JOIN row_state r"
            " ON r.conversation = paged.conversation AND r.axes = paged.axes"
        )
    return f"""WITH {paged}
    conversations AS (
        SELECT r.conversation, r.axes,
            min(iif(r.verdict IN ('failed', 'incomplete'), r.turn, NULL)) AS failed_turn,
            min(iif(r.verdict IN ('failed', 'incomplete') AND NOT coalesce(r.retried, 0),
                r.turn, NULL)) AS last_turn,
            min(iif(r.verdict <> 'succeeded', r.turn, NULL)) AS next_turn,
            min(iif(r.verdict <> 'succeeded', r.n, NULL)) AS next_n
        FROM {turns} GROUP BY r.conversation, r.axes),
    state AS (
        SELECT r.*, c.failed_turn, c.last_turn, c.next_turn, c.next_n,
            CASE
                WHEN r.verdict = 'pending' AND r.turn > c.failed_turn THEN 'blocked'
                WHEN r.verdict = 'pending' AND (r.recorded IS NULL OR r.lost)
                    AND substr(r.ident, 1, 1) = '=' AND EXISTS (
                        SELECT 1 FROM outcomes e
                        WHERE e.ident = r.ident AND e.key <> r.key AND e.status <> 'failed')
                    THEN 'outdated'
                ELSE r.verdict END AS status
        FROM row_state r LEFT JOIN conversations c
            ON c.conversation = r.conversation AND c.axes = r.axes)
    """


# Whether an open batch may still answer the row of the state `s`.
IN_BATCH = "EXISTS (SELECT 1 FROM members m WHERE m.ident = s.ident AND m.key = s.key)"

# Whether the row of the state `s` is to be sent. A turn is sent only if no run stops before it, and
# a blocked one together with the turn that blocks it. What is in a batch is not sent, in whatever
# mode: the batch is paid for.
TO_SEND = f"""((s.status IN ('pending', 'outdated', 'blocked') OR s.retried)
    AND coalesce(s.turn <= s.last_turn, 1) AND NOT {IN_BATCH})"""

# Whether a conversation has a turn to send, asked of the state `s` of its first turn.
HAS_TURN_TO_SEND = "(s.next_turn IS NOT NULL AND coalesce(s.next_turn < s.last_turn, 1))"
