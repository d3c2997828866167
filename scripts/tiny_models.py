# Copyright 2020-2026 The HuggingFace Team. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""A seed in, a tiny language model, reward model or value model out: untrained, or half trained and saved once."""

import contextlib
import hashlib
import os
import random
import shutil
import tempfile
from pathlib import Path

import torch
import transformers
from tiny_data import WORDS, colour_variety, counting, story, tiny_tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2ForSequenceClassification


def _config(**kwargs) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=kwargs.pop("vocab_size", len(WORDS)),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=WORDS.index("<pad>"),
        bos_token_id=WORDS.index("<bos>"),
        eos_token_id=WORDS.index("<eos>"),
        **kwargs,
    )


def tiny_model(vocab_size: int = len(WORDS), seed: int = 0) -> Qwen2ForCausalLM:
    """
    An untrained causal language model: 2 layers, hidden size 32.

    Args:
        vocab_size (`int`, *optional*, defaults to the size of [`tiny_tokenizer`]):
            Number of tokens.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the weights.

    Returns:
        [`~transformers.Qwen2ForCausalLM`]
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(_config(vocab_size=vocab_size))


def tiny_reward_model(seed: int = 0) -> Qwen2ForSequenceClassification:
    """
    An untrained model with one output per sequence, for reward modelling and as PPO's value model.

    Args:
        seed (`int`, *optional*, defaults to `0`):
            Seed of the weights.

    Returns:
        [`~transformers.Qwen2ForSequenceClassification`]
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2ForSequenceClassification(_config(num_labels=1))


def _documents(rng: random.Random, batch: int) -> tuple[list[str], torch.Tensor]:
    pairs = [rng.choice([counting, story])(rng) for _ in range(batch)]
    rewards = torch.tensor(colour_variety([answer for _, answer in pairs]))
    return [f"{prompt} {answer} <eos>" for prompt, answer in pairs], rewards


def _pretrain(model: torch.nn.Module, steps: int, seed: int) -> None:
    """Trains a language model on the tiny language, or a reward model on the colour variety (scaled to about [-1, 1])."""
    rng, tokenizer = random.Random(seed), tiny_tokenizer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        texts, rewards = _documents(rng, 32)
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        if isinstance(model, Qwen2ForCausalLM):
            labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
            loss = model(**batch, labels=labels).loss
        else:
            loss = (model(**batch).logits[:, 0] - (4 * rewards - 1)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def _cache_root() -> Path:
    """A folder per version of these files and libraries: a change never meets a model saved by another version."""
    sources = b"".join(Path(__file__).with_name(name).read_bytes() for name in ("tiny_models.py", "tiny_data.py"))
    key = hashlib.sha256(sources + torch.__version__.encode() + transformers.__version__.encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"tiny_trl_{os.getuid()}" / key


def model_folder(name: str = "policy") -> str:
    """
    Folder of a saved tiny model with its tokenizer; built on the first call, then reused.

    Args:
        name (`str`, *optional*, defaults to `"policy"`):
            `"policy"`: a language model that has learned the tiny language halfway; `"teacher"`: the same trained for
            longer; `"reward"`: a reward model that scores the variety of colours.

    Returns:
        `str`:
            Path that every `from_pretrained` and every TRL trainer takes.
    """
    steps, seed = {"policy": (150, 0), "teacher": (400, 1), "reward": (300, 2)}[name]
    folder = _cache_root() / name
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        model = tiny_reward_model(seed) if name == "reward" else tiny_model(seed=seed)
        _pretrain(model, steps, seed)
        draft = tempfile.mkdtemp(dir=folder.parent)
        model.save_pretrained(draft)
        tiny_tokenizer().save_pretrained(draft)
        # Two processes may build at once: the rename is atomic and the second builder throws its copy away.
        with contextlib.suppress(OSError):
            os.rename(draft, folder)
        shutil.rmtree(draft, ignore_errors=True)
    return str(folder)


def saved_model(name: str = "policy") -> torch.nn.Module:
    """
    A fresh copy of a saved model, see [`model_folder`].

    Args:
        name (`str`, *optional*, defaults to `"policy"`):
            `"policy"`, `"teacher"` or `"reward"`.

    Returns:
        [`~transformers.PreTrainedModel`]
    """
    kind = Qwen2ForSequenceClassification if name == "reward" else Qwen2ForCausalLM
    return kind.from_pretrained(model_folder(name))
