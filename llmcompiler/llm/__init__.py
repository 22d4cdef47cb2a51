"""Chat models: the seam, OpenAI-compatible endpoints, the embedded model and its weights."""
