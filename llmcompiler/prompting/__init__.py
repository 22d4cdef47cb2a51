"""What a model reads: prompts, digests of results, comparisons, checks of numbers."""
