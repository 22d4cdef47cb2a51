"""Does retrieval find the tools that a question needs in a large catalogue?

The catalogue is every function of a BFCL category, hundreds of them; the questions are the
category's. Recall is the share of questions for which *all* functions of the right answer are among
those chosen. Needs what ``benchmarks/bfcl.py`` needs, and no model.

    python benchmarks/tool_selection.py
"""

from __future__ import annotations

import time

from bfcl import CATEGORIES, cases, tool_of

from llmcompiler.tools.selection import select_tools


def main() -> None:
    """Print recall by the number of tools chosen."""
    print("| category | catalogue | chosen | recall | ms/question |\n|---|---|---|---|---|")
    for category in CATEGORIES:
        asked = cases(category)
        tools = {f["name"]: tool_of(f) for case in asked for f in case.functions}
        for shown in (8, 16, 24, 40):
            begun = time.process_time()
            found = 0
            for case in asked:
                chosen = select_tools(case.question, tools, threshold=0, count=shown)
                found += {name for call in case.truth for name in call} <= chosen.keys()
            each = (time.process_time() - begun) / len(asked) * 1000
            print(
                f"| {category} | {len(tools)} | {shown} | {found / len(asked):.1%} | {each:.0f} |"
            )


if __name__ == "__main__":
    main()
