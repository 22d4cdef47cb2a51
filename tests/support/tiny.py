"""Tiny models with random weights, for each family and kind of positions, and a tokenizer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 100.0},
    "linear": {"rope_type": "linear", "rope_theta": 100.0, "factor": 3.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 100.0,
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    # Its attention scaling is not 1, so that scaling twice would show.
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 100.0,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
    "{% if not loop.last or add_generation_prompt %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "</think>")


@cache
def tiny_tokenizer(*more: str) -> Any:
    """Characters as tokens, besides a few common pieces and special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(
        ["Answer: the work is done.\n\nSo the sum is 42. Then we add 7 and 8."] * 3,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=[*SPECIAL, *more],
            # All of ASCII, so that what a random model writes is read back as it was written.
            initial_alphabet=[*(chr(code) for code in range(33, 127)), "Ġ", "Ċ"],
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_config(family: str = "llama", rope: str = "default", **more: Any) -> Any:
    """Four query heads over two key heads, two layers; biases and norms as the family has them."""
    from transformers import AutoConfig

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": len(tiny_tokenizer()),
        "max_position_embeddings": 4096,
        "rope_parameters": dict(ROPES[rope]),
        # Wide enough that attention matters to what comes next.
        "initializer_range": 0.3,
        "eos_token_id": 0,
        "pad_token_id": None,
        "bos_token_id": None,
        "tie_word_embeddings": False,
    }
    return AutoConfig.for_model(family, **(sizes | more))


def tiny_model(family: str = "llama", rope: str = "default", seed: int = 0, **more: Any) -> Any:
    """A model in float32 whose biases and norms are random too."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(family, rope, **more))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.3)
            assert torch.isfinite(weight).all(), name
    return model.eval()


def saved_model(folder: Path, family: str = "llama", **more: Any) -> Path:
    """A directory as transformers saves models."""
    tiny_model(family, **more).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
