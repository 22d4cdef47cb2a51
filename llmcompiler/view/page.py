"""HTML pages that need no other file: the report of a run, and the live page.

The script and the style are built from ``web/`` into ``assets/``; both pages use the same. Data go
into the page as JSON that cannot end the element around it. The page's content security policy
forbids requests to any other host.
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
    """The text of a file in ``assets/``."""
    return files("llmcompiler.view").joinpath("assets", name).read_text(encoding="utf-8")


def embedded_json(data: Any) -> str:
    """JSON that is safe inside a script element, for any data."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).translate(_UNSAFE)


def page(title: str, data: Any, policy: str = "") -> str:
    """A page with the package's script, which is the only one that a browser will run in it.

    Args:
        title: of the browser's window.
        data: JSON-ready; the script reads them from the element ``data``.
        policy: further directives of the page's content security policy.
    """
    script = asset("page.js")
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    allowed = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        f"img-src data: blob:; base-uri 'none'; form-action 'none'; {policy}"
    )
    return _PAGE.format(
        policy=allowed,
        title=html.escape(title),
        style=asset("page.css"),
        data=embedded_json(data),
        script=script,
    )


def report_page(reports: Sequence[dict[str, Any]], title: str) -> str:
    """The report of a run, with related runs as tabs.

    Args:
        reports: results of ``run_report``: the run itself first, then the related runs.
        title: of the browser's window.
    """
    return page(title, {"runs": list(reports)})
