"""How closely ATTS keeps to its budget of takeovers on problems that it was not calibrated on.

    python benchmarks/atts.py                       # simulated scores, seconds
    python benchmarks/atts.py --models --problems 8 # 0.5B drafts, 1.5B judges; minutes

The rate of takeovers is measured over all turns of all held-out problems. In the simulation the
target's scores are random: their mean and spread grow with the turn, and a share of problems is
harder in all turns. The strategy itself runs, with two scripted models. For comparison, the last
columns use one calibration for all turns.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from word_problems import make_problems

from llmcompiler.llm.base import Logprobs
from llmcompiler.llm.models import open_model
from llmcompiler.reasoning.base import StrategyResult
from llmcompiler.reasoning.registry import make_strategy
from llmcompiler.testing.doubles import ScriptedModel

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.support.branches import ScriptedBranch

BUDGETS = (0.05, 0.1, 0.2, 0.3, 0.5)
TURNS = 4
CALIBRATION = 1000
HELD_OUT = 1000


class SimulatedTarget(ScriptedModel):
    """A target that scores each draft at random, by the turn's distribution."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(lambda _: "a step by the target")
        self._rng = rng
        self._turn = 0
        self._hard = rng.random() < 0.3

    def score(self, _: Any) -> Logprobs:
        """Log-probabilities whose mean falls with the turn."""
        self._turn += 1
        mean = 0.4 + 0.5 * self._turn + (0.6 if self._hard else 0.0)
        return Logprobs((-max(0.0, self._rng.gauss(mean, 0.2 + 0.1 * self._turn)),))


async def simulate_problem(rng: random.Random, options: dict[str, Any]) -> StrategyResult:
    """Run one problem of ``TURNS`` turns; the last turn states an answer."""
    steps = ["a step"] * (TURNS - 1) + ["Answer: 1"]
    models = {"draft": ScriptedModel(steps), "branch": SimulatedTarget(rng)}
    strategy = make_strategy("atts", {"turns": TURNS, **options})
    return await ScriptedBranch(models, strategy, capabilities=["prompt_logprobs"]).think()


async def simulate(seed: int) -> None:
    """Print the table for simulated scores."""
    rng = random.Random(seed)
    by_turn: dict[int, list[float]] = defaultdict(list)
    for _ in range(CALIBRATION):
        scores = (await simulate_problem(rng, {"collect": True})).data["scores"]
        for turn, score in enumerate(scores, 1):
            by_turn[turn].append(score)
    pooled = [score for scores in by_turn.values() for score in scores]
    print(f"{CALIBRATION} calibration problems, {HELD_OUT} held out, {TURNS} turns each\n")
    print("| budget | taken over | worst turn | pooled: taken over | worst turn |")
    print("|---|---|---|---|---|")
    for budget in BUDGETS:
        cells = [f"{budget:.0%}"]
        for calibration in (dict(by_turn), dict.fromkeys(by_turn, pooled)):
            options = {"calibration": calibration, "budget": budget}
            takeovers: dict[int, int] = defaultdict(int)
            for _ in range(HELD_OUT):
                result = await simulate_problem(rng, options)
                for turn, step in enumerate(reversed(result.candidates), 1):
                    takeovers[turn] += step.label.startswith("takeover")
            rate = sum(takeovers.values()) / (HELD_OUT * TURNS)
            worst = max(abs(takeovers[turn] / HELD_OUT - budget) for turn in by_turn)
            cells.append(f"{rate:.1%} ({100 * (rate - budget):+.1f} points)")
            cells.append(f"{100 * worst:.1f} points off")
        print(f"| {' | '.join(cells)} |")


async def measure_models(problems: int, budget: float) -> None:
    """Print the rate on held-out problems, with drafts of the 0.5B model judged by the 1.5B one."""
    models = {"branch": open_model("local"), "draft": open_model("local:qwen2.5-coder-0.5b")}
    tasks = make_problems(2, -(-2 * problems // 3))[: 2 * problems]
    common = {"turns": 2, "turn_tokens": 48, "scoring": "judge"}

    async def run(text: str, options: dict[str, Any]) -> StrategyResult:
        strategy = make_strategy("atts", {**common, **options})
        return await ScriptedBranch(models, strategy, temperature=0.7).think(text)

    try:
        by_turn: dict[int, list[float]] = defaultdict(list)
        for task in tasks[:problems]:
            for turn, score in enumerate(
                (await run(task.text, {"collect": True})).data["scores"], 1
            ):
                by_turn[turn].append(score)
        options = {"calibration": dict(by_turn), "budget": budget}
        results = [await run(task.text, options) for task in tasks[problems:]]
    finally:
        for model in models.values():
            await model.aclose()
    takeovers = sum(result.data["taken"] for result in results)
    turns = sum(result.data["turns"] for result in results)
    print(f"budget {budget:.0%}: {takeovers} of {turns} turns taken over ({takeovers / turns:.1%})")


def main() -> None:
    """Simulate, or ask models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", action="store_true")
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--budget", type=float, default=0.2)
    options = parser.parse_args()
    if options.models:
        asyncio.run(measure_models(options.problems, options.budget))
    else:
        asyncio.run(simulate(options.seed))


if __name__ == "__main__":
    main()
