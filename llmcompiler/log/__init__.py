"""The durable store: events and values of runs, in one SQLite file."""
