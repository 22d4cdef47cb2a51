"""The texts that planners' and joiners' models read: prompts, and digests of results."""
