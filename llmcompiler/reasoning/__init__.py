"""Reasoning branches: strategies, reducers of their candidates, and a sandbox for models' code."""
