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

"""What the recipes of hidden faults are built from: a seed goes in, what a trainer is given comes out."""

import copy
import math
import mmap
import random
import tempfile
import time
from collections.abc import Callable
from typing import Any

import tiny
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tiny_data import (
    ANIMALS,
    CHAT_TEMPLATE,
    NUMBERS,
    chat_dataset,
    colour_variety,
    preference_dataset,
    text_dataset,
    tiny_tokenizer,
)
from transformers import DataCollatorForLanguageModeling, TrainerCallback

from failure_lab.optimisation import lora


def adamw(parameters) -> dict:
    """Optimizer of one's own."""
    return {"optimizers": (torch.optim.AdamW(parameters, lr=3e-4), None)}


def optimizer_of_a_copy(seed: int) -> dict:
    """The optimizer was built before the model was loaded anew."""
    return adamw(tiny.saved_model().parameters())


def optimizer_before_the_adapter(seed: int) -> dict:
    """The optimizer was built before the model became a PEFT model, which freezes all that it holds."""
    model = tiny.saved_model()
    return {"model": model, "peft_config": lora(), **adamw(list(model.parameters()))}


def optimizer_of_one_layer(seed: int) -> dict:
    """Groups that were chosen by a name which only some of the parameters have."""
    model = tiny.saved_model()
    return {"model": model, **adamw([p for name, p in model.named_parameters() if "layers.0" in name])}


def two_adapters(frozen: bool) -> Callable[[int], dict]:
    """The second adapter shall be trained, but the first one is active; it may be trained as well."""

    def build(seed: int) -> dict:
        torch.manual_seed(seed)
        few = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"])
        model = get_peft_model(tiny.saved_model(), few)
        model.add_adapter("second", lora())
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(".second." in name or (not frozen and "lora_" in name))
        return {"model": model}

    return build


def adapter_and_head(seed: int) -> dict:
    """An adapter with an output layer that is trained as a whole."""
    model = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head"])
    return {"model": tiny.saved_model(), "peft_config": model}


class CutAtTheEmbeddings(TrainerCallback):
    """The output of the frozen embeddings asks for no gradient, so that reentrant checkpointing cuts the graph there."""

    def on_train_begin(self, args, state, control, model, **kwargs):
        model.get_input_embeddings().register_forward_hook(lambda layer, inputs, output: output.detach())


def in_bfloat16(seed: int) -> dict:
    """Weights themselves in bfloat16, as `dtype="bfloat16"` of `from_pretrained` gives them."""
    return {"model": tiny.saved_model().bfloat16()}


def infinite_gradient(call: int) -> Callable[[Any], None]:
    """The gradient of one parameter overflows in one backward pass."""

    def prepare(trainer: Any) -> None:
        calls = 0

        def overflow(gradient):
            nonlocal calls
            calls += 1
            return gradient + math.inf if calls == call else gradient

        trainer.model.model.layers[1].mlp.up_proj.weight.register_hook(overflow)

    return prepare


class UndoUpdates(TrainerCallback):
    """Puts the weights back after each step, as a callback does that swaps averaged weights in and forgets them."""

    def on_train_begin(self, args, state, control, model, **kwargs):
        self.weights = copy.deepcopy(model.state_dict())

    def on_step_end(self, args, state, control, model, **kwargs):
        model.load_state_dict(self.weights)


def skip_updates(trainer: Any) -> None:
    """The optimizer is wrapped by something that never calls it."""
    create = trainer.create_optimizer

    def create_optimizer(*args):
        optimizer = create(*args)
        optimizer.step = lambda closure=None: None
        return optimizer

    trainer.create_optimizer = create_optimizer


def words(count: int, rng: random.Random, length: int = 8) -> list[str]:
    """Texts of which hardly two are the same."""
    return [" ".join(rng.choices(NUMBERS + ANIMALS, k=length)) for _ in range(count)]


def tokenizer_with(**changes: Any) -> Any:
    """The tokenizer with other special tokens or another template."""
    tokenizer = tiny_tokenizer()
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return tokenizer


def tokenized(seed: int) -> Dataset:
    """Texts with their end token, as tokens."""
    tokenizer = tiny_tokenizer()
    return Dataset.from_dict(
        {"input_ids": [tokenizer(f"{t} <eos>")["input_ids"] for t in text_dataset(seed=seed)["text"]]}
    )


def labels_masked(every: int) -> Callable[[int], dict]:
    """Every n-th row has no label, as where a response template is not found."""

    def build(seed: int) -> dict:
        rows = tokenized(seed)
        labels = [[-100] * len(ids) if i % every == 0 else ids for i, ids in enumerate(rows["input_ids"])]
        return {"train_dataset": rows.add_column("labels", labels)}

    return build


def without_end(seed: int) -> dict:
    """A chat template that closes no turn."""
    tokenizer = tokenizer_with(chat_template=CHAT_TEMPLATE.replace(" <eos> ", " "))
    return {"processing_class": tokenizer, "train_dataset": chat_dataset(seed=seed)}


def pairs_without_end(seed: int) -> dict:
    """The same with pairs."""
    chats = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            **{side: [{"role": "assistant", "content": row[side].strip()}] for side in ("chosen", "rejected")},
        }
        for row in preference_dataset(seed=seed)
    ]
    return without_end(seed) | {"train_dataset": Dataset.from_list(chats)}


def end_as_padding(seed: int) -> dict:
    """The end token pads, and a collator that masks padding masks it too."""
    tokenizer = tokenizer_with(pad_token="<eos>")
    return {
        "processing_class": tokenizer,
        "data_collator": DataCollatorForLanguageModeling(tokenizer, mlm=False),
        "train_dataset": tokenized(seed),
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }


def end_outside_the_mask(seed: int) -> dict:
    """A chat template whose generation block ends before the end token."""
    template = CHAT_TEMPLATE.replace("+ ' <eos> ' }}{% endgeneration %}", "}}{% endgeneration %}{{ ' <eos> ' }}")
    return {"processing_class": tokenizer_with(chat_template=template), "train_dataset": chat_dataset(seed=seed)}


def started_twice(dataset: Callable[..., Dataset], column: str) -> Callable[[int], dict]:
    """The text has a start token, and the tokenizer adds another."""
    return lambda seed: {
        "train_dataset": dataset(seed=seed).map(lambda row: {column: f"<bos> <bos> {row[column]}"}),
    }


def one_in_four(seed: int, fault: Callable[[dict], dict]) -> dict:
    """Preference pairs of which every fourth is changed."""
    rows = [fault(row) if i % 4 == 0 else row for i, row in enumerate(preference_dataset(seed=seed))]
    return {"train_dataset": Dataset.from_list(rows)}


def pairs_partly_equal(seed: int) -> dict:
    """Every fourth pair has the same answer twice."""
    return one_in_four(seed, lambda row: row | {"rejected": row["chosen"]})


def pairs_equal_when_cut(seed: int) -> dict:
    """Every fourth pair differs only at its far end."""
    return one_in_four(
        seed, lambda row: {"prompt": row["prompt"]} | {"chosen": FAR + " cat", "rejected": FAR + " dog"}
    )


FAR = " red" * 20


def long_prompts(kind: str) -> Callable[[int], dict]:
    """Every fourth prompt alone is longer than `max_length`."""

    def build(seed: int) -> dict:
        rng = random.Random(seed)
        rows = {"prompt": [words(1, rng, 40 if i % 4 == 0 else 6)[0] for i in range(512)]}
        names = {"sft": ["completion"], "kto": ["completion"]}.get(kind, ["chosen", "rejected"])
        rows |= {name: [f" {text}" for text in words(512, rng, 6)] for name in names}
        return {"train_dataset": Dataset.from_dict(rows | ({"label": [True, False] * 256} if kind == "kto" else {}))}

    return build


def rows_in_both(dataset: Callable[..., Dataset]) -> Callable[[int], dict]:
    """The evaluation rows are the first of the training rows; no row is there twice."""

    def build(seed: int) -> dict:
        rng, rows = random.Random(seed), dataset(256, seed)
        column = "text" if "text" in rows.column_names else "prompt"
        rows = rows.map(lambda row: {column: f"{words(1, rng)[0]} {row[column]}"}, load_from_cache_file=False)
        return {"train_dataset": rows, "eval_dataset": rows.select(range(32))}

    return build


def few_texts(seed: int) -> dict:
    """A few texts, repeated by a join that went wrong."""
    return {"train_dataset": Dataset.from_list(list(text_dataset(8, seed)) * 64)}


def new_token_untrained(seed: int) -> dict:
    """A special token whose embedding nobody trained, and an adapter that does not train it either."""
    model = tiny.saved_model()
    with torch.no_grad():
        model.get_input_embeddings().weight[tiny_tokenizer().convert_tokens_to_ids("<|assistant|>")] = 0
    return {"model": model, "peft_config": lora(), "train_dataset": chat_dataset(seed=seed)}


def tokens_added(seed: int) -> dict:
    """Tokens were added to the tokenizer, and the embedding was not resized."""
    tokenizer, rows = tiny_tokenizer(), text_dataset(seed=seed)
    tokenizer.add_tokens(["lion", "tiger"])
    return {
        "processing_class": tokenizer,
        "train_dataset": rows.map(lambda row: {"text": f"{row['text']} lion tiger"}),
    }


def shallow_copy(seed: int) -> dict:
    """`copy.copy` of a model has the same weights."""
    model = tiny.saved_model()
    return {"model": model, "ref_model": copy.copy(model)}


def first_word(completions, **kwargs) -> list[float]:
    """Fails for an answer without a word."""
    return [0.5 * (completion.split()[0] == "the") + reward for completion, reward in _scored(completions)]


def _scored(completions: list[str]) -> list[tuple[str, float]]:
    return list(zip(completions, colour_variety(completions), strict=True))


def missing_column(completions, solution, **kwargs) -> list[float]:
    """Wants a column that the data does not have."""
    return [float(text == right) for text, right in zip(completions, solution, strict=True)]


def always_one(completions, **kwargs) -> list[float]:
    """Does not look at what it is given."""
    return [1.0] * len(completions)


def forgets_to_return(completions, **kwargs) -> list[None]:
    """Has nothing to say about this kind of task."""
    return [None] * len(completions)


def slow(completions, **kwargs) -> list[float]:
    """A judge that answers after seconds."""
    time.sleep(2.1)
    return colour_variety(completions)


def one_for_all(completions, **kwargs) -> list[float]:
    """One reward for the batch instead of one per answer."""
    return [sum(colour_variety(completions)) / len(completions)]


def slow_collator(trainer: Any) -> None:
    """Each batch is made while the training waits for it."""
    inner = trainer.data_collator

    class Slow(type(inner)):
        def __call__(self, rows, *args, **kwargs):
            time.sleep(0.15)
            return inner(rows, *args, **kwargs)

    trainer.data_collator = copy.copy(inner)
    trainer.data_collator.__class__ = Slow


class HostMemoryLeak(TrainerCallback):
    """
    Memory of the process grows with each step. It is one block of a file that is mapped again and again: it counts each
    time, as leaked memory does, and takes its space once.
    """

    size = 6 << 20

    def on_train_begin(self, args, state, control, **kwargs):
        self.file, self.kept = tempfile.TemporaryFile(), []
        self.file.truncate(self.size)

    def on_step_end(self, args, state, control, **kwargs):
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self.kept.append(mmap.mmap(self.file.fileno(), self.size, flags=flags, prot=mmap.PROT_READ))

    def on_train_end(self, args, state, control, **kwargs):
        for block in self.kept:
            block.close()
        self.file.close()
