"""The intermediate representation: plans, tasks, expressions, their types and diagnostics."""
