"""Passes: each maps a plan to a plan and says what it did."""
