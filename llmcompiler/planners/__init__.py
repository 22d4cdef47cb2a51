"""Planners: each turns a question into a stream of checked tasks."""
