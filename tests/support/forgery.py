"""Change a log so that it looks untouched: what a replay notices when checksums do not."""

from __future__ import annotations

import zlib

from llmcompiler.log.codec import checksum
from llmcompiler.log.sqlite_file import places_of
from llmcompiler.log.store import RunStore


def forge(store: RunStore, change: str) -> None:
    """Change the rows by an SQL statement, then number and seal them anew."""
    db = store._db
    db.execute(change)
    for number, run in db.execute("SELECT run, id FROM runs").fetchall():
        rows = db.execute(
            "SELECT place, kind, body FROM events WHERE place BETWEEN ? AND ? ORDER BY place",
            places_of(number),
        ).fetchall()
        for seq, (place, kind, body) in enumerate(rows):
            db.execute(
                "UPDATE events SET place = ?, crc = ? WHERE place = ?",
                (
                    places_of(number)[0] + seq,
                    checksum(zlib.crc32(run.encode()), seq, kind, body),
                    place,
                ),
            )
