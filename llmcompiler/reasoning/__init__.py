"""Reasoning branches: strategies, what merges their candidates, and what judges code."""
