"""Does retrieval find the tools that a question needs in a large catalogue?

The catalogue holds all functions of a BFCL category, hundreds of them; the questions are those of
the category. Recall is the share of questions for which *all* functions of the right answer are
selected. It needs the package of ``benchmarks/bfcl.py``, and no model.

    python benchmarks/tool_selection.py
"""

from __future__ import annotations

import time

from bfcl import CATEGORIES, load_cases, make_tool

from llmcompiler.tools.selection import select_tools


def main() -> None:
    """Print recall by the number of tools chosen."""
    print("| category | catalogue | chosen | recall | ms/question |\n|---|---|---|---|---|")
    for category in CATEGORIES:
        category_cases = load_cases(category)
        tools = {f["name"]: make_tool(f) for case in category_cases for f in case.functions}
        for limit in (8, 16, 24, 40):
            started_at = time.process_time()
            hits = 0
            for case in category_cases:
                selection = select_tools(case.question, tools, threshold=0, count=limit)
                hits += {name for call in case.truth for name in call} <= selection.keys()
            milliseconds = (time.process_time() - started_at) / len(category_cases) * 1000
            print(
                f"| {category} | {len(tools)} | {limit} | {hits / len(category_cases):.1%} "
                f"| {milliseconds:.0f} |"
            )


if __name__ == "__main__":
    main()
