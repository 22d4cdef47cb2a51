"""The native engine: weights in this process, and calls that share attention caches.

Needs the extra ``native`` (torch, transformers). Other packages use ``native.model`` (a
``ChatModel``) and ``native.location``.
"""
