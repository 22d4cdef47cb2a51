"""Views of runs and plans: terminal, text, JSON, drawings, web pages, notebooks, OpenTelemetry."""
