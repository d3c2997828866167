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

"""A trainer goes in, numbers about its rows as they will be trained on come out: labels, end tokens, lengths, duplicates."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import torch
from datasets import Dataset
from torch.distributed.tensor import DTensor
from transformers import Trainer

from .preflight_rows import (
    MASKED,
    Sequence,
    kind_of,
    prompts,
    readable,
    sampled,
    sequences,
    token_limit,
    tokenizer_of,
    train_rows,
    whole_texts,
)
from .unseen import Unseen


LABELLED = {"text", "pair", "answer"}  # kinds of rows that come with what is learned
COMPARED, COMPARED_SECONDS, CHUNK = 20_000, 1.0, 500  # rows whose content is compared with each other
CONTENT = (  # columns that make a row what it is; the first set that a data set has
    ("prompt_ids", "chosen_ids", "rejected_ids"),
    ("prompt_ids", "completion_ids", "label"),
    ("chosen_input_ids", "rejected_input_ids"),
    ("chosen_ids", "rejected_ids"),
    ("input_ids",),
    ("messages",),
    ("prompt",),
)
# A row this near to the mean of all rows, or this short, was never trained: resizing puts new rows there, or at zero.
NEAR_MEAN, SHORT = 0.05, 0.01


def share(found: list[bool]) -> float:
    return sum(found) / len(found)


def masks(trainer: Trainer) -> dict[str, float]:
    """How much of the sampled sequences is learned."""
    if kind_of(trainer) not in LABELLED:
        return {}
    found = sequences(trainer)
    labels = [label for one in found for label in one.labels[1:]]  # none predicts the first token
    return {
        "masked_label_share": labels.count(MASKED) / max(len(labels), 1),
        "fully_masked_share": share([not one.trained for one in found]),
        "sampled_sequences": float(len(found)),
    }


def ends(trainer: Trainer) -> dict[str, float]:
    """Whether texts that nothing cut teach their end."""
    if kind_of(trainer) not in LABELLED:
        return {}
    end = end_tokens(trainer)
    texts = [one for one in whole_texts(trainer) if one.trained and not one.cut]
    if not texts:
        raise Unseen("each sampled text is cut by max_length or has no labels")
    taught = [not end.isdisjoint(one.trained) for one in texts]
    there = [not end.isdisjoint(after_prompt(one)) for one in texts]
    return {
        "end_token_share": share(taught),
        "end_token_masked_share": share([has and not learns for has, learns in zip(there, taught, strict=True)]),
    }


def end_tokens(trainer: Trainer) -> set[int]:
    """Tokens that end a text: of the tokenizer, of generation, and what the chat template puts behind an answer."""
    tokenizer, stops = tokenizer_of(trainer), trainer.model.generation_config.eos_token_id
    found = {tokenizer.eos_token_id, *(stops if isinstance(stops, list) else [stops])}
    if tokenizer.chat_template is not None:
        turns = [{"role": "user", "content": "QUESTION"}, {"role": "assistant", "content": "ANSWER"}]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        behind = tokenizer(text.rpartition("ANSWER")[2], add_special_tokens=False)["input_ids"]
        found |= set(behind) & set(tokenizer.added_tokens_decoder)
    if not found - {None}:
        raise Unseen("neither the tokenizer nor the model names an end token")
    return found - {None}


def after_prompt(one: Sequence) -> list[int]:
    """The tokens from the first trained label on."""
    first = next(i for i, label in enumerate(one.labels) if label != MASKED)
    return one.ids[first:]


def special_tokens(trainer: Trainer) -> dict[str, float]:
    """Tokens of the rows that the embedding does not have, or has and never trained and will not train."""
    model = vars(trainer).get("policy_model") or trainer.model  # PPO trains a wrapper around policy and value model
    embedding = model.get_input_embeddings()
    weight = embedding.weight.detach()
    if weight.ndim != 2 or weight.numel() == 0 or isinstance(weight, DTensor):
        raise Unseen("the embedding is sharded")
    tokenizer, used = tokenizer_of(trainer), {token for ids in token_rows(trainer) for token in ids}
    missing = {token for token in used if token >= len(weight)}
    found = {"tokens_without_embedding": float(len(missing)), "untrained_special_tokens": 0.0}
    if not any(parameter.requires_grad for parameter in embedding.parameters()):
        special = sorted((used - missing - {tokenizer.pad_token_id}) & set(tokenizer.added_tokens_decoder))
        added = [token for token in tokenizer.added_tokens_decoder if token < len(weight)]
        found["untrained_special_tokens"] = float(sum(untrained(weight, special, added)))
    return found


def untrained(weight: torch.Tensor, tokens: list[int], others: list[int]) -> list[bool]:
    """Whether the row of a token is (almost) zero, (almost) the mean of all rows, or that of another token."""
    usual = weight[:: max(len(weight) // 1000, 1)].float()
    rows, mean, others = weight[tokens].float(), usual.mean(0), weight[others].float()
    short = rows.norm(dim=1) < SHORT * usual.norm(dim=1).median()
    near = (rows - mean).norm(dim=1) < NEAR_MEAN * (usual - mean).norm(dim=1).median()
    twin = torch.stack([(others == row).all(1).sum() > 1 for row in rows]) if tokens else short
    return (short | near | twin).tolist()


def token_rows(trainer: Trainer) -> list[list[int]]:
    """The sampled rows as tokens, whatever the trainer."""
    kind = kind_of(trainer)
    if kind == "scored pair":
        return [row[side] for row in sampled(train_rows(trainer)) for side in ("chosen_ids", "rejected_ids")]
    return prompts(trainer) if kind == "prompt" else [one.ids for one in sequences(trainer)]


def starts(trainer: Trainer) -> dict[str, float]:
    """Texts that begin with two start tokens."""
    first = tokenizer_of(trainer).bos_token_id
    if first is None:
        return {"double_start_share": 0.0}
    return {"double_start_share": share([ids[:2] == [first, first] for ids in token_rows(trainer)])}


def pairs(trainer: Trainer) -> dict[str, float]:
    """Pairs whose two answers are the same, and those that max_length makes the same."""
    kind, rows = kind_of(trainer), sampled(train_rows(trainer))
    if kind == "scored pair":
        return {"equal_pair_share": share([row["chosen_ids"] == row["rejected_ids"] for row in rows])}
    if kind != "pair":
        return {}
    found = sequences(trainer)
    same = [row["chosen"] == row["rejected"] for row in rows]
    both = zip(found[::2], found[1::2], strict=True)
    cut = [one.ids == two.ids and one.cut and two.cut and bool(one.trained) for one, two in both]
    return {
        "equal_pair_share": share(same),
        "cut_equal_pair_share": share([now and not before for now, before in zip(cut, same, strict=True)]),
    }


def truncation(trainer: Trainer) -> dict[str, float]:
    """Texts that max_length shortens; where they are stored without their rest, those of exactly its length count."""
    limit = token_limit(trainer)
    if kind_of(trainer) not in LABELLED or limit is None:
        return {}
    return {"token_limit": float(limit), "truncated_share": share([one.cut for one in whole_texts(trainer)])}


def lost_completions(trainer: Trainer) -> dict[str, float]:
    """Rows of whose labels max_length leaves nothing: they stay (ORPO, CPO), or the trainer leaves them out."""
    kind, limit, dataset = kind_of(trainer), token_limit(trainer), train_rows(trainer)
    columns, packing = set(dataset.column_names), vars(trainer.args).get("packing")
    if kind == "prompt" or limit is None or packing or (kind == "text" and "input_ids" not in columns):
        return {}
    if {"KL_completion_ids", "ref_logps", "ref_chosen_logps"} & columns:
        raise Unseen("the rows were stored anew after those without a completion were left out")
    if kind == "scored pair":
        if "chosen" not in columns:
            raise Unseen("the rows came tokenized: who left some out is unknown")
        return {"token_limit": float(limit), "left_out_pair_share": left_out(dataset)}
    if "chosen_labels" in columns:
        return {"lost_completion_share": share([one.cut and not one.trained for one in sequences(trainer)])}
    return {"lost_completion_share": left_out(dataset)}


def left_out(dataset: Dataset) -> float:
    """Share of the rows that a filter left out; they are still in the table of those that were tokenized before it."""
    return 1 - len(dataset) / dataset.data.num_rows


def prompt_lengths(trainer: Trainer) -> dict[str, float]:
    """Prompts that leave no room for a completion of full length."""
    if kind_of(trainer) != "prompt":
        return {}
    options = vars(trainer.args)
    longest = options.get("max_completion_length") or options.get("max_new_tokens")
    room = options.get("vllm_max_model_length") if options.get("use_vllm") else options.get("max_length")
    room = room or trainer.model.config.get_text_config().to_dict().get("max_position_embeddings")
    if longest is None or room is None:
        raise Unseen("the longest completion or the context of the model is unknown")
    long = [len(ids) + longest > room for ids in prompts(trainer)]
    return {"long_prompt_share": share(long), "completion_limit": float(longest), "context_limit": float(room)}


def empties(trainer: Trainer) -> dict[str, float]:
    """Rows with an empty prompt, and texts in which nothing but special tokens is learned."""
    rows, found = sampled(train_rows(trainer)), {}
    if "prompt" in rows[0]:
        found["empty_prompt_share"] = share([is_empty(row["prompt"]) for row in rows])
    if kind_of(trainer) in LABELLED:
        if learned := [one.trained for one in sequences(trainer) if one.trained and not one.cut]:
            texts = tokenizer_of(trainer).batch_decode(learned, skip_special_tokens=True)
            found["empty_completion_share"] = share([not text.strip() for text in texts])
    return found


def is_empty(prompt: str | list[dict[str, Any]]) -> bool:
    """Whether a prompt has no content at all."""
    return not (prompt.strip() if isinstance(prompt, str) else [turn for turn in prompt if turn["content"]])


def desirable(trainer: Trainer) -> dict[str, float]:
    """Share of KTO's rows that are undesirable."""
    if kind_of(trainer) != "answer":
        return {}
    rows = sampled(train_rows(trainer))
    return {"undesirable_share": share([not row["label"] for row in rows])}


def duplicates(trainer: Trainer) -> dict[str, float]:
    """Rows with the content of another row, among the first ones, and evaluation rows that are training rows too."""
    columns, rows = content(trainer, train_rows(trainer))
    counts = Counter(rows)
    found = {
        "compared_rows": float(len(rows)),
        "repeated_row_share": 1 - len(counts) / len(rows),
        "twin_row_share": share([counts[row] > 1 for row in rows]),
    }
    sets = trainer.eval_dataset.values() if isinstance(trainer.eval_dataset, dict) else [trainer.eval_dataset]
    others = [row for dataset in sets if dataset is not None for row in keys(readable(dataset), columns)]
    if others:
        found["compared_eval_rows"] = float(len(others))
        found["eval_row_in_train_share"] = share([row in counts for row in others])
    return found


def content(trainer: Trainer, dataset: Dataset) -> tuple[tuple[str, ...], list[int]]:
    """The columns that make a row what it is, and a key for each of the first rows."""
    if vars(trainer.args).get("packing"):
        raise Unseen("packed rows hold several texts")
    columns = next((names for names in CONTENT if set(names) <= set(dataset.column_names)), None)
    if columns is None:
        raise Unseen("no column is known to hold the content of a row")
    return columns, keys(dataset, columns)


def keys(dataset: Dataset, columns: tuple[str, ...]) -> list[int]:
    """A hash for each of the first rows; equal rows have equal ones."""
    if not set(columns) <= set(dataset.column_names):
        raise Unseen("the evaluation rows have other columns than the training rows")
    table, found, until = dataset.with_format("arrow"), [], time.monotonic() + COMPARED_SECONDS
    for start in range(0, min(len(dataset), COMPARED), CHUNK):
        chunk = table[start : min(start + CHUNK, len(dataset), COMPARED)]
        found += map(hash, zip(*(cells(chunk.column(name).combine_chunks()) for name in columns), strict=True))
        if time.monotonic() > until:
            break
    return found


def cells(column: pa.Array) -> list[bytes | str]:
    """Each cell of a column as something to hash: tokens as bytes, for they are many."""
    if pa.types.is_list(column.type) and pa.types.is_integer(column.type.value_type):
        values, ends = column.values.to_numpy(), column.offsets.to_pylist()
        return [values[start:end].tobytes() for start, end in zip(ends, ends[1:], strict=False)]
    return list(map(repr, column.to_pylist()))


DATA_CHECKS: dict[str, Callable[[Trainer], dict[str, float]]] = {
    "masked labels": masks,
    "end token": ends,
    "special tokens": special_tokens,
    "start token": starts,
    "equal pairs": pairs,
    "truncation": truncation,
    "lost completions": lost_completions,
    "prompt lengths": prompt_lengths,
    "empty texts": empties,
    "undesirable rows": desirable,
    "duplicates": duplicates,
}
