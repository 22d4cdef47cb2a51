"""Change a log so that it looks untouched: what a replay notices when checksums do not."""

from __future__ import annotations

import zlib

from llmcompiler.log import RunStore
from llmcompiler.rows import checksum


def forge(store: RunStore, change: str) -> None:
    """Change the rows by an SQL statement, then number and seal them anew."""
    db = store._db
    db.execute(change)
    for number, run in db.execute("SELECT run, id FROM runs").fetchall():
        rows = db.execute(
            "SELECT seq, kind, body FROM events WHERE run = ? ORDER BY seq", (number,)
        ).fetchall()
        for place, (seq, kind, body) in enumerate(rows):
            db.execute(
                "UPDATE events SET seq = ?, crc = ? WHERE run = ? AND seq = ?",
                (place, checksum(zlib.crc32(run.encode()), place, kind, body), number, seq),
            )
