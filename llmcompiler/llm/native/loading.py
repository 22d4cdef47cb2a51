"""Loads models from a file, a directory or the hub, and refuses kinds that blocks are wrong for.

A model whose positions or windows work otherwise would still write, only worse; so a kind that is
not known to be right is refused by name. Checkpoints trained to think in parallel (ParaThinker,
arXiv 2509.04475) have a table of thought embeddings in every layer, which is added to values, and
to keys before they are turned. The tables are loaded for all layers or not at all.
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
from llmcompiler.llm.native.attention import NAME, ForwardPass
from llmcompiler.llm.native.blocks import KeyValueShape
from llmcompiler.llm.native.location import ModelLocation
from llmcompiler.llm.native.rotary import Rotation, Tensor
from llmcompiler.llm.native.views import RowGroup

FAMILIES = ("llama", "qwen2", "qwen3")
ROPES = ("default", "linear", "llama3", "yarn")
_THOUGHT_TABLE = re.compile(r"(?:model\.)?layers\.(\d+)\.self_attn\.seg_embeddings\.weight")


class LoadedModel:
    """A model that reads and writes blocks.

    Args:
        model: a model of transformers; its attention is set to ``attention.NAME``.
        tokenizer: the model's tokenizer.

    Attributes:
        shape: the form of a token's keys and values.
        rotation: how positions turn queries and keys.
        context: the largest number of positions.
        end_tokens: tokens that end an answer.
        has_thoughts: True if the model was trained to think in parallel.

    Raises:
        UsageError: the model is of a kind that blocks are not known to be right for.
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
        self.shape = KeyValueShape(
            config.num_hidden_layers, config.num_key_value_heads, size, dtype, self.device
        )
        self._decoder = model.get_decoder()
        self._head = model.get_output_embeddings()
        self.rotation = Rotation(self._decoder.rotary_emb.inv_freq.to(self.device), dtype)
        self.context = int(config.max_position_embeddings)
        self.end_tokens = _end_tokens(model, tokenizer)
        self.has_thoughts = False
        self._thought_tables: list[Tensor] = []
        self._row_thoughts: Tensor | None = None

    def forward(
        self,
        groups: Sequence[RowGroup],
        tokens: Sequence[Sequence[int]],
        thoughts: Sequence[int] = (),
    ) -> Tensor:
        """Run one forward pass over new tokens.

        Args:
            groups: groups from ``plan_group``; their rows are numbered through.
            tokens: the new tokens of each row, as many as planned.
            thoughts: the number of each row's line of thought, 0 for none; may be left out.

        Returns:
            The scores of all tokens behind each row's last one, of shape (rows, vocabulary).
        """
        counts = [count for group in groups for count in group.counts]
        starts = [start for group in groups for start in group.starts]
        longest = max(counts)
        padded = [list(row) + [0] * (longest - len(row)) for row in tokens]
        places = torch.tensor(starts, device=self.device)[:, None]
        if self.has_thoughts:
            self._row_thoughts = torch.tensor(thoughts or [0] * len(counts), device=self.device)
        with torch.inference_mode():
            states = self._decoder(
                input_ids=torch.tensor(padded, device=self.device),
                position_ids=places + torch.arange(longest, device=self.device),
                past_key_values=(forward_pass := ForwardPass(groups)),
                use_cache=True,
                forward_pass=forward_pass,
            ).last_hidden_state
            last = torch.tensor(counts, device=self.device) - 1
            states = states[torch.arange(len(counts), device=self.device), last]
            return self._head(states)

    def think_in_parallel(self, tables: Sequence[Tensor]) -> None:
        """Use a table of thought embeddings in each layer.

        Args:
            tables: one table a layer, of shape (thoughts, head size); row 0 is for texts that are
                no line of thought.
        """
        self.has_thoughts = True
        self._thought_tables = [table.to(self.device, self.shape.dtype) for table in tables]

        def embedding_hook(layer: int) -> Any:
            def hook(_module: Any, _inputs: Any, out: Tensor) -> Tensor:
                table = self._thought_tables[layer][self._row_thoughts].repeat(1, self.shape.heads)
                return out + table[:, None]

            return hook

        for layer, block in enumerate(self._decoder.layers):
            block.self_attn.k_proj.register_forward_hook(embedding_hook(layer))
            block.self_attn.v_proj.register_forward_hook(embedding_hook(layer))


def load(location: ModelLocation) -> LoadedModel:
    """Load a model.

    Raises:
        UsageError: the model is of a kind that is refused, or the device does not exist.
        ModelError: no model is there, or its weights cannot be read.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    place = Path(location.place).expanduser()
    path_arguments: dict[str, Any] = {"pretrained_model_name_or_path": location.place}
    if place.suffix == ".gguf":
        path_arguments = {
            "pretrained_model_name_or_path": str(place.parent),
            "gguf_file": place.name,
        }
    elif place.exists():
        path_arguments = {"pretrained_model_name_or_path": str(place)}
    dtype, device = getattr(torch, location.dtype), _device(location.device)
    verbosity = transformers.utils.logging.get_verbosity()
    # What transformers logs about unknown weights is an error here, or of no interest.
    transformers.utils.logging.set_verbosity_error()
    try:
        config = transformers.AutoConfig.from_pretrained(**path_arguments)
        _check(config)
        tokenizer = transformers.AutoTokenizer.from_pretrained(**path_arguments)
        with _no_progress_bar():
            model, loading_info = transformers.AutoModelForCausalLM.from_pretrained(
                **path_arguments, dtype=dtype, output_loading_info=True
            )
    except UsageError:
        raise
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ModelError(
            f"the model at {location.place} cannot be loaded: {str(error).splitlines()[0]}",
            hint="native: takes a directory as transformers saves it, a .gguf file, or a name on "
            "the model hub",
        ) from error
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
    tables = _thought_tables(loading_info, place, config, location.place)
    loaded = LoadedModel(model.to(device), tokenizer)
    if tables:
        loaded.think_in_parallel(tables)
    return loaded


def _no_progress_bar() -> Any:
    """A context without the progress bar of GGUF files, which no setting of transformers covers."""
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


def _thought_tables(loading_info: Any, place: Path, config: Any, name: str) -> list[Tensor]:
    """The thought embeddings of a checkpoint, one table a layer; none if it has no tables.

    Raises:
        ModelError: weights are missing, or unknown and no thought embeddings.
    """
    missing = sorted(loading_info["missing_keys"])
    unexpected = sorted(loading_info["unexpected_keys"])
    key_by_layer = {
        int(match[1]): key for key in unexpected if (match := _THOUGHT_TABLE.fullmatch(key))
    }
    strange = [key for key in unexpected if key not in key_by_layer.values()]
    if key_by_layer:
        absent = set(range(config.num_hidden_layers)) - set(key_by_layer)
        missing += [f"model.layers.{n}.self_attn.seg_embeddings.weight" for n in sorted(absent)]
    if missing or strange:
        faults = [f"lacks {key}" for key in missing[:3]] + [f"has {key}" for key in strange[:3]]
        raise ModelError(
            f"the weights at {name} do not fit their model: they {', '.join(faults)}",
            hint="the checkpoint is of another kind than its config.json says, or is damaged",
        )
    if not key_by_layer:
        return []
    keys = [key_by_layer[layer] for layer in sorted(key_by_layer)]
    return _read_tensors(place if place.exists() else _hub_folder(name), keys)


def _read_tensors(folder: Path, keys: Sequence[str]) -> list[Tensor]:
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    files = {}
    if index.exists():
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    tensors = []
    for key in keys:
        with safe_open(folder / files.get(key, "model.safetensors"), framework="pt") as weights:
            tensors.append(weights.get_tensor(key))
    return tensors


def _hub_folder(name: str) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, local_files_only=True))


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    tokens = {
        tokenizer.eos_token_id,
        *(configured if isinstance(configured, list) else [configured]),
    }
    return frozenset(token for token in tokens if token is not None)


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
