"""What the native engine costs: tokens a second, a step's time, memory, and summaries.

    python benchmarks/native.py smollm2-135m [--tokens 128] [--workers 1,2,4,8] [--json FILE]

One run, one table: W workers who see each other, against the same W as one plain batch of the same
engine, against transformers' own batched ``generate``, and against W ``generate`` calls one after
the other. Then a step's time against the length of what is seen, bytes a token against what keys
and values must take, and how long a summary of P = 4 paths takes to its first token with their
caches against reading them again. Times are wall-clock: run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from llmcompiler.llm import weights
from llmcompiler.llm.embedded import physical_cores
from llmcompiler.llm.native.attention import NAME
from llmcompiler.llm.native.blocks import Bank
from llmcompiler.llm.native.loading import Loaded, load
from llmcompiler.llm.native.source import read_source
from llmcompiler.llm.native.views import BlockId, View, plan_group
from llmcompiler.llm.native.writer import read

WORD = 100
"""A token that is written over and over: what it says costs nothing."""


def median_ms(step: Callable[[], Any], times: int) -> float:
    """Of so many steps, the first two left out."""
    took = []
    for _ in range(times + 2):
        begun = time.perf_counter()
        step()
        took.append(time.perf_counter() - begun)
    return 1000 * statistics.median(took[2:])


def filled(loaded: Loaded, length: int, slots: int = 1) -> Bank:
    """Blocks with so many tokens each; what they say costs nothing."""
    bank = Bank(loaded.shape, slots)
    bank.reserve(length)
    for keys, values in zip(bank.keys, bank.values, strict=True):
        keys.normal_()
        values.normal_()
    bank.lengths = [length] * slots
    return bank


def shared_step(loaded: Loaded, workers: int, prompt: int, written: int) -> Callable[[], Any]:
    """One token each, of workers who see each other."""
    head, bank = filled(loaded, prompt), filled(loaded, written, workers)

    def view(worker: int) -> View:
        others = [(BlockId(bank, w),) for w in range(workers) if w != worker]
        return ((BlockId(head, 0),), *others, (BlockId(bank, worker),))

    def step() -> Any:
        group = plan_group([view(w) for w in range(workers)], [1] * workers, loaded.rotation)
        return loaded.forward([group], [[WORD]] * workers).argmax(-1)

    return step


def plain_step(loaded: Loaded, workers: int, seen: int) -> Callable[[], Any]:
    """One token each, of requests that have nothing to do with each other."""
    banks = [filled(loaded, seen) for _ in range(workers)]

    def step() -> Any:
        groups = [plan_group([((BlockId(b, 0),),)], [1], loaded.rotation) for b in banks]
        return loaded.forward(groups, [[WORD]] * workers).argmax(-1)

    return step


def generate(loaded: Loaded, rows: int, prompt: int, tokens: int) -> float:
    """Seconds of transformers' own generation of so many tokens a row."""
    loaded.model.set_attn_implementation("sdpa")
    ids = torch.full((rows, prompt), WORD)
    begun = time.perf_counter()
    loaded.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
    )
    took = time.perf_counter() - begun
    loaded.model.set_attn_implementation(NAME)
    return took


def speed(loaded: Loaded, workers: list[int], prompt: int, tokens: int) -> list[dict[str, float]]:
    """Tokens a second, of workers and of what they are compared with."""
    one = generate(loaded, 1, prompt, tokens)
    rows = []
    for count in workers:
        shared = median_ms(shared_step(loaded, count, prompt, tokens // 2), tokens // 4)
        # The same number of keys for each row to look at.
        seen = prompt + count * (tokens // 2)
        plain = median_ms(plain_step(loaded, count, seen), tokens // 4)
        batched = generate(loaded, count, prompt, tokens)
        rows.append(
            {
                "workers": count,
                "step_ms": shared,
                "tokens_per_s": 1000 * count / shared,
                "plain_step_ms": plain,
                "shared_over_plain": shared / plain,
                "generate_batched_tokens_per_s": count * tokens / batched,
                "generate_one_by_one_tokens_per_s": tokens / one,
            }
        )
    return rows


def by_length(loaded: Loaded, lengths: list[int]) -> list[dict[str, float]]:
    """What a step takes when so many tokens are seen."""
    return [
        {
            "seen": length,
            "shared_step_ms": median_ms(shared_step(loaded, 2, length // 2, length // 4), 10),
            "plain_step_ms": median_ms(plain_step(loaded, 2, length), 10),
        }
        for length in lengths
    ]


def memory(loaded: Loaded, lengths: list[int]) -> list[dict[str, float]]:
    """What four growing blocks take."""
    rows = []
    for length in lengths:
        bank = Bank(loaded.shape, 4)
        for grown in range(1, length + 1):
            bank.reserve(grown)
        needed = 4 * length * loaded.shape.token_bytes
        rows.append(
            {
                "tokens": length,
                "bytes_per_token": bank.bytes / (4 * length),
                "over_theory": bank.bytes / needed,
            }
        )
    return rows


def summaries(loaded: Loaded, paths: int, lengths: list[int]) -> list[dict[str, float]]:
    """Seconds to the first token of a summary that begins with sixteen of its own."""
    rows = []
    for length in lengths:
        head, bank, end = filled(loaded, 64), filled(loaded, length, paths), Bank(loaded.shape)
        view = (
            (BlockId(head, 0),),
            tuple(BlockId(bank, slot) for slot in range(paths)),
            (BlockId(end, 0),),
        )
        begun = time.perf_counter()
        list(read(loaded, view, [WORD] * 16))
        cached = time.perf_counter() - begun
        again = Bank(loaded.shape)
        begun = time.perf_counter()
        list(read(loaded, ((BlockId(again, 0),),), [WORD] * (64 + paths * length + 16)))
        read_again = time.perf_counter() - begun
        rows.append(
            {
                "paths": paths,
                "path_tokens": length,
                "cached_s": cached,
                "read_again_s": read_again,
                "times": read_again / cached,
            }
        )
    return rows


def show(title: str, rows: list[dict[str, float]]) -> None:
    """One table."""
    print(f"\n{title}")
    print("  ".join(f"{name:>14}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value:>{max(14, len(name))}.5g}" for name, value in row.items()))


def numbers(text: str) -> list[int]:
    """``1,2,4`` as numbers."""
    return [int(part) for part in text.split(",")]


def main() -> None:
    """Measure all, show it, and keep it if asked to."""
    options = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("model", nargs="?", default="smollm2-135m")
    options.add_argument("--tokens", type=int, default=128)
    options.add_argument("--prompt", type=int, default=128)
    options.add_argument("--workers", type=numbers, default=[1, 2, 4, 8])
    options.add_argument("--lengths", type=numbers, default=[256, 1024, 2048, 4096])
    options.add_argument("--paths", type=numbers, default=[512, 2048])
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(physical_cores())
    torch.manual_seed(0)
    source = read_source(given.model)
    if source.place in weights.WEIGHTS:
        source = read_source(given.model.replace(source.place, str(weights.pull(source.place))))
    loaded = load(source)
    # Positions are only numbers here: a long table needs no long training.
    loaded.context = 10**6
    print(
        f"{given.model}, {source.dtype} on {loaded.device}, {torch.get_num_threads()} threads, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    tables = {}
    for title, measure in (
        ("workers", lambda: speed(loaded, given.workers, given.prompt, given.tokens)),
        ("a step of two, by what they see", lambda: by_length(loaded, given.lengths)),
        ("memory of four workers", lambda: memory(loaded, given.lengths)),
        ("summary of four paths, first token", lambda: summaries(loaded, 4, given.paths)),
    ):
        tables[title] = measure()
        show(title, tables[title])
    if given.json:
        given.json.write_text(json.dumps(tables, indent=1))


if __name__ == "__main__":
    main()
