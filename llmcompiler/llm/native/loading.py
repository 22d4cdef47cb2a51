"""Models from a file, a directory or the hub, checked to be of a kind that blocks are right for.

A model whose positions or windows work otherwise would still write, only worse; so what is not
known to be right is refused by name. Checkpoints trained to think in parallel (ParaThinker, arXiv
2509.04475) carry a table of thought embeddings in every layer, which is added to keys before they
are turned and to values; it is loaded whole or not at all. The module must not know what is asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from llmcompiler.errors import ModelError, UsageError
from llmcompiler.llm.native.attention import NAME, Step
from llmcompiler.llm.native.blocks import Shape
from llmcompiler.llm.native.rotary import Rotation, Tensor
from llmcompiler.llm.native.source import Source
from llmcompiler.llm.native.views import Group

FAMILIES = ("llama", "qwen2", "qwen3")
ROPES = ("default", "linear", "llama3", "yarn")
_TABLE = re.compile(r"(?:model\.)?layers\.(\d+)\.self_attn\.seg_embeddings\.weight")


class Loaded:
    """A model that reads and writes blocks.

    Args:
        model: of transformers, with its attention set to ``attention.NAME``.
        tokenizer: its tokenizer.

    Attributes:
        shape: of what it keeps of a token.
        rotation: how its positions turn.
        context: most positions.
        ends: tokens that end an answer.
        thoughts: whether it was trained to think in parallel.

    Raises:
        UsageError: it is of a kind that blocks are not known to be right for.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        _check(model.config)
        model.set_attn_implementation(NAME)
        self.model = model.eval()
        self.tokenizer = tokenizer
        config = model.config
        weight = model.get_output_embeddings().weight
        self.device, dtype = weight.device, weight.dtype
        heads = config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        self.shape = Shape(
            config.num_hidden_layers, config.num_key_value_heads, size, dtype, self.device
        )
        self._decoder = model.get_decoder()
        self._head = model.get_output_embeddings()
        self.rotation = Rotation(self._decoder.rotary_emb.inv_freq.to(self.device), dtype)
        self.context = int(config.max_position_embeddings)
        self.ends = _ends(model, tokenizer)
        self.thoughts = False
        self._tables: list[Tensor] = []
        self._thought_of: Tensor | None = None

    def forward(
        self, groups: Sequence[Group], tokens: Sequence[Sequence[int]], thoughts: Sequence[int] = ()
    ) -> Tensor:
        """Take in tokens, and say what comes next.

        Args:
            groups: as planned; all rows of all groups, in their order.
            tokens: of each row, as many as planned.
            thoughts: the number of each row's line of thought, 0 for none; may be left out.

        Returns:
            Scores of all tokens of the vocabulary behind each row's last one: rows, vocabulary.
        """
        counts = [count for group in groups for count in group.counts]
        starts = [start for group in groups for start in group.starts]
        longest = max(counts)
        padded = [list(row) + [0] * (longest - len(row)) for row in tokens]
        places = torch.tensor(starts, device=self.device)[:, None]
        if self.thoughts:
            self._thought_of = torch.tensor(thoughts or [0] * len(counts), device=self.device)
        with torch.inference_mode():
            states = self._decoder(
                input_ids=torch.tensor(padded, device=self.device),
                position_ids=places + torch.arange(longest, device=self.device),
                past_key_values=(step := Step(groups)),
                use_cache=True,
                step=step,
            ).last_hidden_state
            last = torch.tensor(counts, device=self.device) - 1
            states = states[torch.arange(len(counts), device=self.device), last]
            return self._head(states)

    def think_in_parallel(self, tables: Sequence[Tensor]) -> None:
        """Use a table of thought embeddings in each layer.

        Args:
            tables: a layer's: thoughts, head size; row 0 is for what is no line of thought.
        """
        self.thoughts = True
        self._tables = [table.to(self.device, self.shape.dtype) for table in tables]

        def add(layer: int) -> Any:
            def hook(_module: Any, _inputs: Any, out: Tensor) -> Tensor:
                table = self._tables[layer][self._thought_of].repeat(1, self.shape.heads)
                return out + table[:, None]

            return hook

        for layer, block in enumerate(self._decoder.layers):
            block.self_attn.k_proj.register_forward_hook(add(layer))
            block.self_attn.v_proj.register_forward_hook(add(layer))


def load(source: Source) -> Loaded:
    """Load a model.

    Raises:
        UsageError: there is none there, torch or transformers is too old for it, or it is of a kind
            that is refused.
        ModelError: its weights cannot be read.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    place = Path(source.place).expanduser()
    where: dict[str, Any] = {"pretrained_model_name_or_path": source.place}
    if place.suffix == ".gguf":
        where = {"pretrained_model_name_or_path": str(place.parent), "gguf_file": place.name}
    elif place.exists():
        where = {"pretrained_model_name_or_path": str(place)}
    dtype, device = getattr(torch, source.dtype), _device(source.device)
    level = transformers.utils.logging.get_verbosity()
    # What it says of weights that it does not know is an error here, or of no interest.
    transformers.utils.logging.set_verbosity_error()
    try:
        config = transformers.AutoConfig.from_pretrained(**where)
        _check(config)
        tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
        with _quiet():
            model, said = transformers.AutoModelForCausalLM.from_pretrained(
                **where, dtype=dtype, output_loading_info=True
            )
    except UsageError:
        raise
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ModelError(
            f"the model at {source.place} cannot be loaded: {str(error).splitlines()[0]}",
            hint="native: takes a directory as transformers saves it, a .gguf file, or a name on "
            "the model hub",
        ) from error
    finally:
        transformers.utils.logging.set_verbosity(level)
    tables = _tables(said, place, config, source.place)
    loaded = Loaded(model.to(device), tokenizer)
    if tables:
        loaded.think_in_parallel(tables)
    return loaded


def _quiet() -> Any:
    """Draws no bar for a GGUF file, which no setting of transformers covers and which would be
    drawn across our own lines."""
    from transformers import modeling_gguf_pytorch_utils as reader

    return mock.patch.object(reader, "tqdm", lambda items, **_: items)


def _check(config: Any) -> None:
    family = config.model_type
    if family not in FAMILIES:
        raise UsageError(
            f'models of the family "{family}" are not known to be right with shared attention',
            hint=f"families that are: {', '.join(FAMILIES)}; or run it with llama.cpp: local:FILE",
        )
    windows = getattr(config, "layer_types", None) or ()
    if "sliding_attention" in windows or getattr(config, "sliding_window", None):
        raise UsageError(
            f'this "{family}" model attends through a sliding window, which blocks do not have',
            hint="use a model with full attention in all layers",
        )
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in ROPES:
        raise UsageError(
            f'this "{family}" model has rotary positions of the type "{rope}", which change with '
            "the length of a text",
            hint=f"types that do not: {', '.join(ROPES)}",
        )


def _tables(said: Any, place: Path, config: Any, name: str) -> list[Tensor]:
    """Thought embeddings of a checkpoint that has them; of anything else amiss, an error."""
    missing = sorted(said["missing_keys"])
    unexpected = sorted(said["unexpected_keys"])
    found = {int(match[1]): key for key in unexpected if (match := _TABLE.fullmatch(key))}
    strange = [key for key in unexpected if key not in found.values()]
    if found:
        absent = set(range(config.num_hidden_layers)) - set(found)
        missing += [f"model.layers.{n}.self_attn.seg_embeddings.weight" for n in sorted(absent)]
    if missing or strange:
        what = [f"lacks {key}" for key in missing[:3]] + [f"has {key}" for key in strange[:3]]
        raise ModelError(
            f"the weights at {name} do not fit their model: they {', '.join(what)}",
            hint="the checkpoint is of another kind than its config.json says, or is damaged",
        )
    if not found:
        return []
    keys = [found[layer] for layer in sorted(found)]
    return _read(place if place.exists() else _fetched(name), keys)


def _read(folder: Path, keys: Sequence[str]) -> list[Tensor]:
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    files = {}
    if index.exists():
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    tables = []
    for key in keys:
        with safe_open(folder / files.get(key, "model.safetensors"), framework="pt") as weights:
            tables.append(weights.get_tensor(key))
    return tables


def _fetched(name: str) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, local_files_only=True))


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    told = getattr(model.generation_config, "eos_token_id", None)
    ends = {tokenizer.eos_token_id, *(told if isinstance(told, list) else [told])}
    return frozenset(one for one in ends if one is not None)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f'there is no device "{name}"', hint="cpu, cuda, cuda:1, mps") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("there is no GPU that torch can use", hint="leave the device out")
    return device
