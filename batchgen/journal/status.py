"""The status of each row: the six words, their orders, and the SQL that works them out.

`ROW_STATE` makes temporary views, and needs the function `is_accepted` of its connection. Every
connection therefore works statuses out in the same way, whatever version wrote the file, and a plan
may shadow the tables that pass 1 writes with temporary ones and ask about rows that are not
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

# Whether the outcome `o` of a turn `r` followed another reply than the one that the turn before has
# now: then it belongs to a conversation that is gone. Of what schema 1 recorded, only the runs may
# tell: a reply of a later run is another one.
_FOLLOWS_ANOTHER = """(r.turn > 1 AND o.status IS NOT NULL AND NOT coalesce(
    f.previous = p.ident AND f.run = po.run, po.run <= o.run, 0))"""

# `row_state`: the state of each row by its own outcome and the reply that it followed. Finish
# reasons that the job accepts count as success here but not in what is recorded, so the job may
# change `output.accept` without paying for anything again.
# `missing`: outcomes whose pictures count as lost. `sampled`: the prompts that a sample draws.
# `owned`: every outcome with its owner, the identity of the row that has it, or had it last.
ROW_STATE = f"""
CREATE TEMP TABLE missing(ident TEXT, key BLOB, PRIMARY KEY(ident, key));
CREATE TEMP TABLE sampled(n INTEGER PRIMARY KEY);
CREATE TEMP VIEW owned AS
SELECT o.ident AS owner, o.* FROM outcomes o WHERE NOT EXISTS (
    SELECT 1 FROM adopted a WHERE a.ident = o.ident AND a.key = o.key)
UNION ALL
SELECT a.owner, o.* FROM adopted a JOIN outcomes o ON o.ident = a.ident AND o.key = a.key;
CREATE TEMP VIEW row_state AS
SELECT r.*, o.status AS recorded, o.finish_reason, o.reason, o.passing, o.tries, o.redo,
    o.status IS NOT NULL AND (o.lost OR m.ident IS NOT NULL) AS lost,
    CASE
        WHEN r.error IS NOT NULL THEN 'failed'
        WHEN o.status IS NULL OR o.lost OR m.ident IS NOT NULL THEN 'pending'
        WHEN o.redo OR {_FOLLOWS_ANOTHER} THEN iif(o.status = 'failed', 'pending', 'outdated')
        WHEN o.reason IS NOT NULL THEN 'failed'
        WHEN o.status = 'incomplete' AND is_accepted(o.finish_reason) THEN 'succeeded'
        ELSE o.status END AS verdict,
    r.error IS NULL AND o.status = 'failed' AND NOT o.redo AND o.passing AND o.tries < {MAX_TRIES}
        AS retried,
    {_FOLLOWS_ANOTHER} AS follows_another
FROM rows r LEFT JOIN outcomes o ON o.ident = r.ident AND o.key = r.key
    LEFT JOIN missing m ON m.ident = r.ident AND m.key = r.key
    LEFT JOIN rows p ON p.conversation = r.conversation AND p.axes = r.axes AND p.turn = r.turn - 1
    LEFT JOIN outcomes po ON po.ident = p.ident AND po.key = p.key
    LEFT JOIN follows f ON f.ident = iif(p.seq IS NULL, NULL, r.ident) AND f.key = r.key;
"""


def state(page: str | None = None) -> str:
    """The WITH clause that defines `state`: each row with its status.

    page: a SELECT of seq, for questions about few rows. It becomes the table `page`, and only the
        conversations of its rows are read.

    It also says how far each conversation has come: `failed_turn` is the first turn that failed or
    is incomplete (later turns are blocked), `last_turn` the first such turn that no run retries (no
    later turn is sent), `next_turn` (of the prompt `next_n`) the first turn that has not
    succeeded, and `open_turn` the first turn that gets a new answer (so do later turns). Each is
    NULL if there is no such turn.
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
            min(iif(r.verdict <> 'succeeded', r.n, NULL)) AS next_n,
            min(iif(r.verdict IN ('pending', 'outdated'), r.turn, NULL)) AS open_turn
        FROM {turns} GROUP BY r.conversation, r.axes),
    state AS (
        SELECT r.*, c.failed_turn, c.last_turn, c.next_turn, c.next_n, c.open_turn,
            CASE
                WHEN r.verdict = 'succeeded' AND r.turn > c.open_turn THEN 'outdated'
                WHEN r.verdict = 'pending' AND r.turn > c.failed_turn THEN 'blocked'
                WHEN r.verdict = 'pending' AND (r.recorded IS NULL OR r.lost)
                    AND substr(r.ident, 1, 1) = '=' AND EXISTS (
                        SELECT 1 FROM owned e
                        WHERE e.owner = r.ident AND e.key <> r.key AND e.status <> 'failed')
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
