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

"""A trainer goes in, a sample of its rows comes out: as they are stored, and as the sequences that the model will see."""

import math
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase, Trainer

from .unseen import Unseen


ROWS = 256  # spread over the data set: a share of 5 % is met with 13 of them
FEW, LONG = 64, 100_000  # rows of so many bytes take milliseconds each
MASKED = -100
IMAGES = {"image", "images"}
SFT_COLUMNS = ("input_ids", "labels", "attention_mask", "seq_lengths")


@dataclass(frozen=True)
class Sequence:
    """
    One text as the model will see it.

    Args:
        ids (`list[int]`):
            Its tokens.
        labels (`list[int]`):
            The same, `-100` where nothing is learned.
        cut (`bool`):
            Whether a limit on its length took tokens away.
    """

    ids: list[int]
    labels: list[int]
    cut: bool

    @property
    def trained(self) -> list[int]:
        """The labels that count: none predicts the first token."""
        return [label for label in self.labels[1:] if label != MASKED]


def train_rows(trainer: Trainer) -> Dataset:
    """The rows to train on, if reading some of them costs and changes nothing."""
    return readable(trainer.train_dataset)


def readable(dataset: Any) -> Dataset:
    """The data set without its format, if reading some of its rows costs and changes nothing."""
    if not isinstance(dataset, Dataset):
        raise Unseen(f"the rows of this {type(dataset).__name__} are known only once they are read in turn")
    if dataset.format["type"] == "custom":
        raise Unseen("a transform makes the rows while they are read")
    if not len(dataset):
        raise Unseen("the data set is empty")
    if IMAGES & set(dataset.column_names):
        raise Unseen("rows with images become tokens only in the batch")
    return dataset.with_format(None)


def sampled(dataset: Dataset) -> list[dict[str, Any]]:
    """The same rows each time, spread over a data set, one from each stretch of it."""
    rows = ROWS if dataset.data.nbytes < LONG * dataset.data.num_rows else FEW
    # not every n-th: interleaved data sets come in turns, and all of these would be of one
    count, stretch, random = len(dataset), math.ceil(len(dataset) / rows), Random(0)
    return [dataset[random.randrange(i, min(i + stretch, count))] for i in range(0, count, stretch)]


def tokenizer_of(trainer: Trainer) -> PreTrainedTokenizerBase:
    """The tokenizer of a trainer that has one."""
    if not isinstance(trainer.processing_class, PreTrainedTokenizerBase):
        raise Unseen(f"the processing class is a {type(trainer.processing_class).__name__}, no tokenizer")
    return trainer.processing_class


def kind_of(trainer: Trainer) -> str:
    """What a row is: `"text"`, `"pair"`, `"answer"` (KTO), `"scored pair"` (reward models) or `"prompt"`."""
    columns = set(train_rows(trainer).column_names)
    if "chosen_labels" in columns or {"prompt_ids", "chosen_ids"} <= columns:
        return "pair"
    if {"prompt_ids", "completion_ids"} <= columns:
        return "answer"
    if "chosen_ids" in columns:
        return "scored pair"
    if "packing" in vars(trainer.args):  # SFT and what is built on it
        return "text"
    if "prompt" in columns:
        return "prompt"
    raise Unseen(f"rows of {', '.join(sorted(columns))} are of no known kind")


@lru_cache(maxsize=1)  # several checks ask for them
def sequences(trainer: Trainer) -> list[Sequence]:
    """The sampled rows as sequences with labels: one per row or packed text, two per pair, the chosen one first."""
    dataset, limit = train_rows(trainer), token_limit(trainer)
    if "chosen_labels" in dataset.column_names:  # ORPO, CPO: cut when they were tokenized
        return [_stored(row, side, limit) for row in sampled(dataset) for side in ("chosen", "rejected")]
    collator = type(trainer.data_collator)
    if collator.__module__.partition(".")[0] not in ("trl", "transformers"):
        raise Unseen(f"a data collator of one's own ({collator.__name__}) may change with each call")
    collate = _supervised if kind_of(trainer) == "text" else _with_completion
    return [one for row in sampled(dataset) for one in collate(trainer, row, limit)]


def forget() -> None:
    """Hold on to no trainer and no rows."""
    sequences.cache_clear()


def token_limit(trainer: Trainer) -> int | None:
    """`max_length` where the trainer heeds it: rows that came prepared stay as they are."""
    options = vars(trainer.args)
    prepared = (options.get("dataset_kwargs") or {}).get("skip_prepare_dataset")
    return None if prepared and "input_ids" in trainer.train_dataset.column_names else options.get("max_length")


def _stored(row: dict[str, Any], side: str, limit: int | None) -> Sequence:
    ids = row[f"{side}_input_ids"]
    return Sequence(ids, row[f"{side}_labels"], limit is not None and len(ids) >= limit)


def _with_completion(trainer: Trainer, row: dict[str, Any], limit: int | None) -> list[Sequence]:
    """DPO and KTO: whole rows are stored, and the collator cuts them."""
    batch, found = trainer.data_collator([row]), []
    answers = [row[f"{side}_ids"] for side in ("chosen", "rejected", "completion") if f"{side}_ids" in row]
    for i, answer in enumerate(answers):
        seen = int(batch["attention_mask"][i].sum())
        ids, mask = batch["input_ids"][i, :seen].tolist(), batch["completion_mask"][i, :seen].tolist()
        labels = [token if kept else MASKED for token, kept in zip(ids, mask, strict=True)]
        found.append(Sequence(ids, labels, limit is not None and len(row["prompt_ids"]) + len(answer) > limit))
    return found


def _supervised(trainer: Trainer, row: dict[str, Any], limit: int | None) -> list[Sequence]:
    """SFT and GKD: the collator pads, and masks what it masks; a packed row is several texts."""
    batch = trainer.data_collator([{k: row[k] for k in SFT_COLUMNS if k in row} if "input_ids" in row else row])
    if "labels" not in batch:
        raise Unseen(f"{type(trainer.data_collator).__name__} makes no labels")
    seen = batch["attention_mask"][0].bool() if "attention_mask" in batch else slice(None)
    ids, labels = batch["input_ids"][0][seen].tolist(), batch["labels"][0][seen].tolist()
    lengths, start, found = row.get("seq_lengths") or [len(row.get("input_ids", ids))], 0, []
    for length in lengths:
        end = start + length
        found.append(Sequence(ids[start:end], labels[start:end], limit is not None and length >= limit))
        start = end
    return found


def whole_texts(trainer: Trainer) -> list[Sequence]:
    """The sampled sequences, if each is a text of its own and not a piece of one."""
    packing, columns = vars(trainer.args).get("packing"), set(train_rows(trainer).column_names)
    if packing and trainer.args.packing_strategy != "bfd":
        raise Unseen(f"packing_strategy '{trainer.args.packing_strategy}' makes pieces of texts")
    found = sequences(trainer)
    blocks = len(found) > 1 and len({len(one.ids) for one in found}) == 1
    if blocks and columns <= {*SFT_COLUMNS, "completion_mask", "assistant_masks", "token_type_ids"}:
        raise Unseen("all rows came tokenized and have one length: pieces of texts")
    return found


def prompts(trainer: Trainer) -> list[list[int]]:
    """The sampled prompts of a trainer that samples completions, as tokens."""
    tokenizer, found = tokenizer_of(trainer), []
    for prompt in (row["prompt"] for row in sampled(train_rows(trainer))):
        text = prompt if isinstance(prompt, str) else None
        if text is None:
            text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
        found.append(tokenizer(text, add_special_tokens=isinstance(prompt, str))["input_ids"])
    return found
