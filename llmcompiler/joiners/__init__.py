"""Joiners: they answer a question from the results of a plan, or ask for another plan."""
