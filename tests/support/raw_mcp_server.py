"""An MCP server without an SDK, which answers as its arguments say, right or wrong.

The argument is JSON: ``tools`` of the listing, ``results`` of calls by their argument ``x``,
``cursor`` of every page, and ``noise``, a line that it writes to its standard output at first.
"""

import json
import sys

SETTINGS = json.loads(sys.argv[1])


def answer(message: dict) -> dict | None:
    """The result for a request; ``None`` for a method that the server does not have."""
    params = message.get("params") or {}
    match message["method"]:
        case "initialize":
            return {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "raw", "version": "1"},
            }
        case "tools/list":
            cursor = SETTINGS.get("cursor")
            page = {"tools": SETTINGS["tools"]}
            return page if cursor is None else {**page, "nextCursor": cursor}
        case "tools/call":
            x = (params.get("arguments") or {}).get("x")
            text = {"content": [{"type": "text", "text": f"{params['name']}:{x}"}]}
            return SETTINGS.get("results", {}).get(x, text)
    return None


if SETTINGS.get("noise"):
    sys.stdout.write(SETTINGS["noise"] + "\n")
    sys.stdout.flush()
for line in sys.stdin:
    request = json.loads(line)
    if request.get("id") is None:
        continue
    result = answer(request)
    reply = {"error": {"code": -32601, "message": "?"}} if result is None else {"result": result}
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": request["id"], **reply}) + "\n")
    sys.stdout.flush()
