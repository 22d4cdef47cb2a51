"""A run, and those it is related to, as one HTML file that needs nothing else.

The page's program and looks are built from ``web/`` and lie in ``assets/``. Data go in as JSON in
which nothing can end the element that holds it; the page's own policy forbids it to ask any other
host for anything. The module must not know what the data mean.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<div id="app"><p class="noscript">This page draws the run with a script that it carries with it;
a browser that runs no scripts shows nothing more.</p></div>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""

_UNSAFE = str.maketrans({"<": r"\u003c", ">": r"\u003e", "&": r"\u0026"})


def asset(name: str) -> str:
    """A file that the build of ``web/`` put beside this module."""
    return files("llmcompiler.view").joinpath("assets", name).read_text(encoding="utf-8")


def embedded_json(data: Any) -> str:
    """JSON that is safe inside a script element, whatever is in the data."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).translate(_UNSAFE)


def page(title: str, style: str, script: str, data: Any, policy: str = "") -> str:
    """A page of one script, which is the only one that a browser will run in it.

    Args:
        title: for the browser's window.
        style: CSS.
        script: JavaScript; it finds the data in the element ``data``.
        data: JSON-ready.
        policy: what the page may do besides, in the words of a content security policy.
    """
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    allowed = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        f"img-src data: blob:; base-uri 'none'; form-action 'none'; {policy}"
    )
    return _PAGE.format(
        policy=allowed,
        title=html.escape(title),
        style=style,
        data=embedded_json(data),
        script=script,
    )


def report_page(stories: Sequence[dict[str, Any]], title: str) -> str:
    """The page of the first run, with the others as tabs.

    Args:
        stories: what ``run_story`` gives; the run itself, then those that it is related to.
        title: for the browser's window.
    """
    return page(title, asset("page.css"), asset("page.js"), {"runs": list(stories)})
