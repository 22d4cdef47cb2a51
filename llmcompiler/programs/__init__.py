"""Programs: plans written in a subset of Python, compiled to a parallel DAG of calls."""
