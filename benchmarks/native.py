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
from llmcompiler.llm.native.loading import LoadedModel, load
from llmcompiler.llm.native.location import parse_location
from llmcompiler.llm.native.views import BlockId, View, plan_group
from llmcompiler.llm.native.writer import prefill

WORD = 100
"""The token that all texts consist of: its meaning does not change the cost."""


def median_ms(step: Callable[[], Any], times: int) -> float:
    """The median milliseconds of ``times`` steps, after two to warm up."""
    seconds = []
    for _ in range(times + 2):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[2:])


def filled_bank(loaded: LoadedModel, length: int, slots: int = 1) -> Bank:
    """A bank with ``length`` tokens in each block, of random keys and values."""
    bank = Bank(loaded.shape, slots)
    bank.reserve(length)
    for keys, values in zip(bank.keys, bank.values, strict=True):
        keys.normal_()
        values.normal_()
    bank.lengths = [length] * slots
    return bank


def shared_step(loaded: LoadedModel, workers: int, prompt: int, written: int) -> Callable[[], Any]:
    """A step of one token for each of several writers who see each other."""
    head, bank = filled_bank(loaded, prompt), filled_bank(loaded, written, workers)

    def view(worker: int) -> View:
        others = [(BlockId(bank, w),) for w in range(workers) if w != worker]
        return ((BlockId(head, 0),), *others, (BlockId(bank, worker),))

    def step() -> Any:
        group = plan_group([view(w) for w in range(workers)], [1] * workers, loaded.rotation)
        return loaded.forward([group], [[WORD]] * workers).argmax(-1)

    return step


def plain_step(loaded: LoadedModel, workers: int, visible: int) -> Callable[[], Any]:
    """A step of one token for each of several independent requests."""
    banks = [filled_bank(loaded, visible) for _ in range(workers)]

    def step() -> Any:
        groups = [plan_group([((BlockId(b, 0),),)], [1], loaded.rotation) for b in banks]
        return loaded.forward(groups, [[WORD]] * workers).argmax(-1)

    return step


def generate(loaded: LoadedModel, rows: int, prompt: int, tokens: int) -> float:
    """Seconds that transformers' own generation takes for ``tokens`` tokens a row."""
    loaded.model.set_attn_implementation("sdpa")
    ids = torch.full((rows, prompt), WORD)
    start = time.perf_counter()
    loaded.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
    )
    seconds = time.perf_counter() - start
    loaded.model.set_attn_implementation(NAME)
    return seconds


def speed(
    loaded: LoadedModel, workers: list[int], prompt: int, tokens: int
) -> list[dict[str, float]]:
    """Tokens a second, for writers who see each other and for three comparisons."""
    one_row_s = generate(loaded, 1, prompt, tokens)
    rows = []
    for count in workers:
        shared = median_ms(shared_step(loaded, count, prompt, tokens // 2), tokens // 4)
        # Each row of the plain batch sees as many keys.
        visible = prompt + count * (tokens // 2)
        plain = median_ms(plain_step(loaded, count, visible), tokens // 4)
        batched = generate(loaded, count, prompt, tokens)
        rows.append(
            {
                "workers": count,
                "step_ms": shared,
                "tokens_per_s": 1000 * count / shared,
                "plain_step_ms": plain,
                "shared_over_plain": shared / plain,
                "generate_batched_tokens_per_s": count * tokens / batched,
                "generate_one_by_one_tokens_per_s": tokens / one_row_s,
            }
        )
    return rows


def by_length(loaded: LoadedModel, lengths: list[int]) -> list[dict[str, float]]:
    """Milliseconds of a step, by the number of visible tokens."""
    return [
        {
            "seen": length,
            "shared_step_ms": median_ms(shared_step(loaded, 2, length // 2, length // 4), 10),
            "plain_step_ms": median_ms(plain_step(loaded, 2, length), 10),
        }
        for length in lengths
    ]


def memory(loaded: LoadedModel, lengths: list[int]) -> list[dict[str, float]]:
    """Memory of four growing blocks."""
    rows = []
    for length in lengths:
        bank = Bank(loaded.shape, 4)
        for needed_length in range(1, length + 1):
            bank.reserve(needed_length)
        needed = 4 * length * loaded.shape.token_bytes
        rows.append(
            {
                "tokens": length,
                "bytes_per_token": bank.bytes / (4 * length),
                "over_theory": bank.bytes / needed,
            }
        )
    return rows


def summaries(loaded: LoadedModel, paths: int, lengths: list[int]) -> list[dict[str, float]]:
    """Seconds to the first token of a summary whose own beginning has sixteen tokens."""
    rows = []
    for length in lengths:
        head, bank, end = (
            filled_bank(loaded, 64),
            filled_bank(loaded, length, paths),
            Bank(loaded.shape),
        )
        view = (
            (BlockId(head, 0),),
            tuple(BlockId(bank, slot) for slot in range(paths)),
            (BlockId(end, 0),),
        )
        start = time.perf_counter()
        list(prefill(loaded, view, [WORD] * 16))
        cached_s = time.perf_counter() - start
        new_bank = Bank(loaded.shape)
        start = time.perf_counter()
        list(prefill(loaded, ((BlockId(new_bank, 0),),), [WORD] * (64 + paths * length + 16)))
        read_again_s = time.perf_counter() - start
        rows.append(
            {
                "paths": paths,
                "path_tokens": length,
                "cached_s": cached_s,
                "read_again_s": read_again_s,
                "times": read_again_s / cached_s,
            }
        )
    return rows


def show(title: str, rows: list[dict[str, float]]) -> None:
    """Print one table."""
    print(f"\n{title}")
    print("  ".join(f"{name:>14}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value:>{max(14, len(name))}.5g}" for name, value in row.items()))


def numbers(text: str) -> list[int]:
    """``1,2,4`` as numbers."""
    return [int(part) for part in text.split(",")]


def main() -> None:
    """Measure everything, print the tables, and write them to a file if asked to."""
    options = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("model", nargs="?", default="smollm2-135m")
    options.add_argument("--tokens", type=int, default=128)
    options.add_argument("--prompt", type=int, default=128)
    options.add_argument("--workers", type=numbers, default=[1, 2, 4, 8])
    options.add_argument("--lengths", type=numbers, default=[256, 1024, 2048, 4096])
    options.add_argument("--paths", type=numbers, default=[512, 2048])
    options.add_argument("--json", type=Path)
    arguments = options.parse_args()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(physical_cores())
    torch.manual_seed(0)
    location = parse_location(arguments.model)
    if location.place in weights.WEIGHTS:
        path = weights.pull_weights(location.place)
        location = parse_location(arguments.model.replace(location.place, str(path)))
    loaded = load(location)
    # The texts mean nothing, so positions beyond the trained context do no harm.
    loaded.context = 10**6
    print(
        f"{arguments.model}, {location.dtype} on {loaded.device}, "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}"
    )
    tables = {}
    for title, measure in (
        ("workers", lambda: speed(loaded, arguments.workers, arguments.prompt, arguments.tokens)),
        ("a step of two, by what they see", lambda: by_length(loaded, arguments.lengths)),
        ("memory of four workers", lambda: memory(loaded, arguments.lengths)),
        ("summary of four paths, first token", lambda: summaries(loaded, 4, arguments.paths)),
    ):
        tables[title] = measure()
        show(title, tables[title])
    if arguments.json:
        arguments.json.write_text(json.dumps(tables, indent=1))


if __name__ == "__main__":
    main()
