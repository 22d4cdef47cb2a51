"""The native engine: weights in this process, branches that share attention caches.

Needs the extra ``native`` (torch, transformers). It must not know runs, plans or strategies: what
it offers is a ``ChatModel`` (``native.model``), and calls that write in one ``Workspace``.
"""
