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

"""Data faults planted in real trainers: each is named before the first step, and healthy set-ups are silent."""

import json
import random

import pytest
import tiny
import tiny_data
import torch
import transformers
from callback_kit import findings
from datasets import Dataset
from peft import LoraConfig
from tiny_data import chat_dataset, preference_dataset, prompt_dataset, text_dataset, unpaired_dataset

from trl_diagnostics import DiagnosticsCallback
from trl_diagnostics.engine.finding import Severity
from trl_diagnostics.guard import Guard
from trl_diagnostics.sources.preflight import look_before
from trl_diagnostics.sources.preflight_data import COMPARED, DATA_CHECKS, is_empty, keys, untrained
from trl_diagnostics.sources.preflight_rows import sampled
from trl_diagnostics.sources.unseen import Unseen


ROWS = 128
SMALL = {
    "sft": text_dataset,
    "dpo": preference_dataset,
    "kto": unpaired_dataset,
    "reward": preference_dataset,
    "orpo": preference_dataset,
    "cpo": preference_dataset,
    "gkd": chat_dataset,
}
LORA = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def train(folder, kind, **overrides):
    """A training of one step, its callback, and what the preflight found and could not see."""
    if kind in SMALL:
        overrides = {"train_dataset": SMALL[kind](ROWS), "per_device_train_batch_size": 4} | overrides
    callback = DiagnosticsCallback()
    trainer = tiny.make_trainer(kind, folder, [callback], max_steps=1, **overrides)
    trainer.train()
    assert callback.broken == {}
    return trainer


def said(folder):
    """(rule, message) of what was found before the first step and is not called normal."""
    return [(f.rule, f.message) for f in findings(folder) if f.step == 0 and f.severity != Severity.INFO]


def measured(folder):
    line = (folder / "diagnostics" / "metrics.jsonl").read_text().splitlines()[0]
    record = json.loads(line)
    assert record["phase"] == "preflight" and record["step"] == 0
    return record["metrics"]


def unseen(folder):
    return json.loads((folder / "diagnostics" / "preflight.json").read_text())["unseen"]


def words(count, seed=0, length=12):
    """Texts of which hardly two are the same."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(tiny_data.NUMBERS + tiny_data.ANIMALS, k=length)) for _ in range(count)]


def texts(count=ROWS, seed=0, length=12):
    return Dataset.from_dict({"text": words(count, seed, length)})


def answers(prompts, completions):
    return Dataset.from_dict({"prompt": prompts, "completion": [f" {text}" for text in completions]})


def pairs(prompts, chosen, rejected):
    columns = {"chosen": chosen, "rejected": rejected}
    return Dataset.from_dict(
        {"prompt": prompts} | {name: [f" {text}" for text in column] for name, column in columns.items()}
    )


def chats(dataset):
    """The same rows as conversations."""
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant", "completion": "assistant"}
    rows = [
        {k: [{"role": roles[k], "content": v.strip()}] if k in roles else v for k, v in row.items()} for row in dataset
    ]
    return Dataset.from_list(rows)


def tokenized(dataset):
    tokenizer = tiny.tiny_tokenizer()
    ids = [tokenizer(f"{text} <eos>")["input_ids"] for text in dataset["text"]]
    return Dataset.from_dict({"input_ids": ids})


def tokenizer_with(**changes):
    tokenizer = tiny.tiny_tokenizer()
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return tokenizer


class TestHealthy:
    @pytest.mark.parametrize("kind", [*SMALL, "grpo", "rloo", "distillation", "online_dpo"])
    def test_each_trainer(self, kind, tmp_path):
        train(tmp_path, kind)
        assert said(tmp_path) == []
        assert set(unseen(tmp_path)) <= ({"lost completions"} if kind == "kto" else set())

    @pytest.mark.parametrize(
        "options",
        [
            {"packing": True},
            {"packing": True, "packing_strategy": "bfd_split", "max_length": 16},
            {"packing": True, "packing_strategy": "wrapped", "max_length": 16},
            {"padding_free": True, "max_length": None},
            {"pad_to_multiple_of": 8},
            {"peft_config": LORA},
            {"processing_class": tokenizer_with(pad_token="<eos>")},
            {"train_dataset": answers(words(ROWS, 0), words(ROWS, 1))},
            {"train_dataset": answers(words(ROWS, 0), words(ROWS, 1)), "completion_only_loss": True, "packing": True},
            {"train_dataset": chat_dataset(ROWS)},
            {"train_dataset": chat_dataset(ROWS), "assistant_only_loss": True},
            {"eval_dataset": text_dataset(16, seed=1)},
            {"eval_dataset": {"few": text_dataset(16, seed=1), "more": text_dataset(256, seed=2)}},
        ],
        ids=lambda options: " ".join(options),
    )
    def test_sft(self, options, tmp_path):
        train(tmp_path, "sft", **options)
        assert said(tmp_path) == []

    @pytest.mark.parametrize("kind", ["dpo", "kto", "reward"])
    def test_conversations(self, kind, tmp_path):
        train(tmp_path, kind, train_dataset=chats(SMALL[kind](ROWS)))
        assert said(tmp_path) == []

    def test_conversations_that_are_sampled(self, tmp_path):
        train(
            tmp_path,
            "grpo",
            train_dataset=chats(prompt_dataset(ROWS)),
            reward_funcs=lambda completions, **_: [0.5, 1.0] * (len(completions) // 2),
        )
        assert said(tmp_path) == []

    def test_an_adapter_on_preferences(self, tmp_path):
        train(tmp_path, "dpo", peft_config=LORA)
        assert said(tmp_path) == []
        assert measured(tmp_path)["untrained_special_tokens"] == 0

    def test_blocks_of_a_long_text_have_no_end_and_are_not_cut(self, tmp_path):
        ids = [tiny.tiny_tokenizer()(text)["input_ids"] for text in words(ROWS, length=16)]
        train(tmp_path, "sft", train_dataset=Dataset.from_dict({"input_ids": ids}), max_length=16)
        assert said(tmp_path) == []
        assert unseen(tmp_path) == {
            "end token": "all rows came tokenized and have one length: pieces of texts",
            "truncation": "all rows came tokenized and have one length: pieces of texts",
        }


class TestLabels:
    def test_masks_of_zeros_leave_nothing(self, tmp_path):
        rows = chat_dataset(ROWS)
        ids = tokenized(text_dataset(ROWS))["input_ids"]
        rows = rows.add_column("input_ids", list(ids)).add_column("assistant_masks", [[0] * len(one) for one in ids])
        train(tmp_path, "sft", train_dataset=rows, assistant_only_loss=True, max_length=None)
        assert said(tmp_path) == [
            ("labels_all_masked", "None of the 128 texts that were looked at has a label that is trained.")
        ]

    def test_some_rows_without_labels(self, tmp_path):
        rows = tokenized(texts())
        labels = [[-100] * len(ids) if i % 4 == 0 else ids for i, ids in enumerate(rows["input_ids"])]
        train(tmp_path, "sft", train_dataset=rows.add_column("labels", labels), max_length=None)
        assert said(tmp_path) == [("labels_often_masked", "25% of the sampled texts have no label that is trained.")]

    def test_rows_that_come_in_turns(self, tmp_path):
        rows = tokenized(texts(1024))
        labels = [[-100] * len(ids) if i % 4 == 0 else ids for i, ids in enumerate(rows["input_ids"])]
        train(tmp_path, "sft", train_dataset=rows.add_column("labels", labels), max_length=None)
        assert [rule for rule, _ in said(tmp_path)] == ["labels_often_masked"]
        assert measured(tmp_path)["fully_masked_share"] == pytest.approx(0.25, abs=0.07)

    @pytest.mark.parametrize("option", ["assistant_only_loss", "completion_only_loss"])
    def test_rows_that_came_tokenized_without_masks(self, option, tmp_path):
        rows = chat_dataset(ROWS).add_column("input_ids", list(tokenized(text_dataset(ROWS))["input_ids"]))
        train(tmp_path, "sft", train_dataset=rows, **{option: True})
        assert said(tmp_path) == [
            (
                f"{option}_without_effect",
                f"{option} is set, but no label of the 128 sampled texts is masked: prompts are trained too.",
            )
        ]


class TestEndToken:
    def test_a_collator_that_masks_the_pad_token(self, tmp_path):
        tokenizer = tokenizer_with(pad_token="<eos>")
        collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
        options = {"data_collator": collator, "processing_class": tokenizer}
        rows = tokenized(text_dataset(ROWS))
        train(tmp_path, "sft", train_dataset=rows, dataset_kwargs={"skip_prepare_dataset": True}, **options)
        assert said(tmp_path) == [
            (
                "end_token_masked",
                "100% of the sampled texts end with an end token that is masked: the model will not learn to stop.",
            )
        ]

    def test_a_template_whose_mask_ends_before_the_turn(self, tmp_path):
        template = tiny_data.CHAT_TEMPLATE.replace(
            "+ ' <eos> ' }}{% endgeneration %}", "}}{% endgeneration %}{{ ' <eos> ' }}"
        )
        tokenizer = tokenizer_with(chat_template=template)
        options = {"processing_class": tokenizer, "train_dataset": chat_dataset(ROWS)}
        train(tmp_path, "sft", assistant_only_loss=True, **options)
        assert [rule for rule, _ in said(tmp_path)] == ["end_token_masked"]

    @pytest.mark.parametrize("kind", ["sft", "dpo", "kto"])
    def test_a_template_without_an_end(self, kind, tmp_path):
        tokenizer = tokenizer_with(chat_template=tiny_data.CHAT_TEMPLATE.replace(" <eos> ", " "))
        rows = chat_dataset(ROWS) if kind == "sft" else chats(SMALL[kind](ROWS))
        train(tmp_path, kind, train_dataset=rows, processing_class=tokenizer)
        assert said(tmp_path) == [
            (
                "end_token_missing",
                "Only 0% of the sampled texts that nothing cuts teach an end token: the model may not learn to stop.",
            )
        ]

    def test_the_end_of_the_turn_counts(self, tmp_path):
        tokenizer = tokenizer_with(chat_template=tiny_data.CHAT_TEMPLATE.replace(" <eos> ", " <|system|> "))
        train(tmp_path, "sft", train_dataset=chat_dataset(ROWS), processing_class=tokenizer)
        assert said(tmp_path) == []
        assert measured(tmp_path)["end_token_share"] == 1


class TestSpecialTokens:
    def test_a_token_that_the_model_does_not_have(self, tmp_path):
        tokenizer = tiny.tiny_tokenizer()
        tokenizer.add_tokens(["lion", "tiger"])
        rows = Dataset.from_dict({"text": [f"{text} lion tiger" for text in words(ROWS)]})
        with pytest.raises(IndexError, match="index out of range"):
            train(tmp_path, "sft", train_dataset=rows, processing_class=tokenizer)
        assert said(tmp_path) == [
            (
                "tokens_beyond_embedding",
                "2 tokens of the sampled rows have no row in the embedding: the first batch with one will fail.",
            )
        ]

    @pytest.mark.parametrize("fault", ["zero", "mean", "twin"])
    def test_a_row_that_was_never_trained(self, fault, tmp_path):
        model, (user, assistant) = (
            tiny.saved_model(),
            tiny.tiny_tokenizer().convert_tokens_to_ids(["<|user|>", "<|assistant|>"]),
        )
        with torch.no_grad():
            weight = model.get_input_embeddings().weight
            weight[assistant] = {"zero": 0.0, "mean": weight.mean(0), "twin": weight[user]}[fault]
        train(tmp_path, "sft", model=model, train_dataset=chat_dataset(ROWS), peft_config=LORA)
        count = 2 if fault == "twin" else 1
        assert said(tmp_path) == [
            (
                "special_tokens_untrained",
                f"{count} special tokens of the sampled rows have an untrained embedding, and the embedding is frozen.",
            )
        ]

    @pytest.mark.parametrize("extra", [{"modules_to_save": ["embed_tokens"]}, {"trainable_token_indices": [6]}])
    def test_a_row_that_the_adapter_trains(self, extra, tmp_path):
        model = tiny.saved_model()
        with torch.no_grad():
            model.get_input_embeddings().weight[6] = 0
        adapter = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **extra)
        train(tmp_path, "sft", model=model, train_dataset=chat_dataset(ROWS), peft_config=adapter)
        assert said(tmp_path) == []
        assert measured(tmp_path)["untrained_special_tokens"] == 0


class TestStartToken:
    @pytest.mark.parametrize("kind", ["sft", "dpo", "grpo"])
    def test_two(self, kind, tmp_path):
        rows = {"sft": text_dataset, "dpo": preference_dataset, "grpo": prompt_dataset}[kind](ROWS)
        first = "text" if kind == "sft" else "prompt"
        rows = rows.map(lambda row: {first: f"<bos> <bos> {row[first]}"})
        train(tmp_path, kind, train_dataset=rows)
        assert said(tmp_path) == [("double_start_token", "100% of the sampled texts begin with two start tokens.")]

    def test_one(self, tmp_path):
        rows = text_dataset(ROWS).map(lambda row: {"text": f"<bos> {row['text']}"})
        train(tmp_path, "sft", train_dataset=rows)
        assert said(tmp_path) == []


class TestPairs:
    @pytest.mark.parametrize("kind", ["dpo", "orpo", "cpo", "reward"])
    def test_equal(self, kind, tmp_path):
        one, two = words(ROWS, 1), words(ROWS, 2)
        two[::4] = one[::4]
        train(tmp_path, kind, train_dataset=pairs(words(ROWS), one, two))
        assert said(tmp_path) == [
            ("chosen_equals_rejected", "Chosen and rejected are the same text in 25% of the sampled pairs.")
        ]

    @pytest.mark.parametrize("kind", ["dpo", "orpo", "cpo"])
    def test_equal_once_they_are_cut(self, kind, tmp_path):
        one, two = words(ROWS, 1, length=4), words(ROWS, 2, length=4)
        for i in range(0, ROWS, 4):
            one[i], two[i] = f"{'red ' * 20}cat", f"{'red ' * 20}dog"
        train(tmp_path, kind, train_dataset=pairs(words(ROWS, length=4), one, two), max_length=20)
        assert said(tmp_path) == [
            (
                "pairs_equal_after_truncation",
                "25% of the sampled pairs differ only beyond max_length 20: as they are trained, both answers are equal.",
            )
        ]


class TestLengths:
    @pytest.mark.parametrize(
        ("kind", "long", "rule", "message"),
        [
            ("sft", 0.25, "rows_truncated", "max_length 20 cuts 25% of the sampled texts."),
            ("kto", 0.25, "rows_truncated", "max_length 20 cuts 25% of the sampled texts."),
            (
                "dpo",
                0.75,
                "most_rows_truncated",
                "max_length 20 cuts 75% of the sampled texts: few teach how an answer ends.",
            ),
            (
                "orpo",
                0.75,
                "most_rows_truncated",
                "max_length 20 cuts 75% of the sampled texts: few teach how an answer ends.",
            ),
        ],
    )
    def test_cut(self, kind, long, rule, message, tmp_path):
        lengths = [30 if i % 4 < 4 * long else 8 for i in range(ROWS)]
        one, two = ([words(1, i + seed, n)[0] for i, n in enumerate(lengths)] for seed in (1000, 2000))
        prompts = words(ROWS, length=4)
        rows = {"sft": answers(prompts, one), "dpo": pairs(prompts, one, two), "orpo": pairs(prompts, one, two)}
        rows["kto"] = answers(prompts, one).add_column("label", [True, False] * (ROWS // 2))
        train(tmp_path, kind, train_dataset=rows[kind], max_length=20)
        assert said(tmp_path) == [(rule, message)]

    @pytest.mark.parametrize("kind", ["sft", "dpo", "cpo"])
    def test_whole_completions_lost(self, kind, tmp_path):
        prompts = [words(1, i, 40 if i % 4 == 0 else 6)[0] for i in range(ROWS)]
        one, two = words(ROWS, 1, length=6), words(ROWS, 2, length=6)
        rows = answers(prompts, one) if kind == "sft" else pairs(prompts, one, two)
        train(tmp_path, kind, train_dataset=rows, max_length=20)
        assert said(tmp_path) == [
            ("completions_lost_to_max_length", "25% of the rows lose their whole completion to max_length 20.")
        ]

    def test_whole_completions_lost_to_orpo(self, tmp_path):
        prompts = [words(1, i, 40 if i % 4 == 0 else 6)[0] for i in range(ROWS)]
        rows = pairs(prompts, words(ROWS, 1, length=6), words(ROWS, 2, length=6))
        trainer = train(tmp_path, "orpo", train_dataset=rows, max_length=20, per_device_train_batch_size=16)
        message = "25.0% of the sampled answers are lost to max_length 20: a batch with one has a loss of NaN."
        assert said(tmp_path) == [("orpo_completions_lost_to_max_length", message)]
        assert all(weight.isnan().any() for weight in trainer.model.parameters())  # what it says

    def test_pairs_left_out(self, tmp_path):
        one = [words(1, i + 1000, 40 if i % 4 == 0 else 6)[0] for i in range(ROWS)]
        train(tmp_path, "reward", train_dataset=pairs(words(ROWS, length=4), one, words(ROWS, 2, 6)), max_length=20)
        assert said(tmp_path) == [
            ("pairs_left_out_for_length", "25% of the pairs are longer than max_length 20 and were left out.")
        ]

    @pytest.mark.parametrize(
        ("kind", "options", "room"),
        [("grpo", {}, 256), ("rloo", {}, 256), ("online_dpo", {"max_length": 64}, 64)],
    )
    def test_prompts_without_room_for_an_answer(self, kind, options, room, tmp_path):
        prompts = [words(1, i, room - 10 if i % 4 == 0 else 6)[0] for i in range(ROWS)]
        train(tmp_path, kind, train_dataset=Dataset.from_dict({"prompt": prompts}), **options)
        assert said(tmp_path) == [
            (
                "prompts_leave_no_room",
                f"25% of the sampled prompts and 24 new tokens do not fit into {room} tokens.",
            )
        ]


class TestEmpty:
    @pytest.mark.parametrize("kind", ["sft", "dpo"])
    def test_completions(self, kind, tmp_path):
        one = words(ROWS, 1)
        one[::2] = [""] * (ROWS // 2)
        rows = answers(words(ROWS), one) if kind == "sft" else pairs(words(ROWS), one, words(ROWS, 2))
        train(tmp_path, kind, train_dataset=rows)
        share = "50%" if kind == "sft" else "25%"
        assert said(tmp_path) == [("empty_completions", f"{share} of the sampled texts teach an empty answer.")]

    @pytest.mark.parametrize("kind", ["dpo", "kto"])
    def test_prompts(self, kind, tmp_path):
        rows = SMALL[kind](ROWS).map(lambda row, i: {"prompt": row["prompt"] if i % 4 else ""}, with_indices=True)
        train(tmp_path, kind, train_dataset=rows)
        assert said(tmp_path) == [("empty_prompts", "The prompt of 25% of the sampled rows is empty.")]


@pytest.mark.parametrize(("weight", "found"), [(1.0, True), (20.0, False)])
def test_one_side_of_kto(weight, found, tmp_path):
    rows = unpaired_dataset(ROWS).remove_columns("label").add_column("label", [i % 16 != 0 for i in range(ROWS)])
    train(tmp_path, "kto", train_dataset=rows, undesirable_weight=weight)
    message = "6% of the sampled rows are undesirable, and the weights leave one side with less than a tenth."
    assert said(tmp_path) == ([("kto_one_sided_labels", message)] if found else [])


class TestDuplicates:
    def test_few_texts_many_times(self, tmp_path):
        train(tmp_path, "sft", train_dataset=Dataset.from_dict({"text": words(4) * 32}))
        assert said(tmp_path) == [
            (
                "rows_repeated",
                "97% of the first 128 rows repeat an earlier one: an epoch sees few texts many times.",
            )
        ]

    @pytest.mark.parametrize("kind", ["sft", "dpo"])
    def test_evaluation_on_training_rows(self, kind, tmp_path):
        prompts, one, two = words(400), words(400, 1), words(400, 2)
        rows = Dataset.from_dict({"text": one}) if kind == "sft" else pairs(prompts, one, two)
        evaluation = rows.select(range(250, 400))
        train(tmp_path, kind, train_dataset=rows.select(range(300)), eval_dataset=evaluation)
        assert said(tmp_path) == [
            (
                "eval_rows_in_train",
                "33% of 150 evaluation rows are training rows too; 0% of the training rows have a twin themselves.",
            )
        ]


class TestUnseen:
    def test_streams(self, tmp_path):
        train(tmp_path, "sft", train_dataset=text_dataset(ROWS).to_iterable_dataset())
        why = "the rows of this IterableDataset are known only once they are read in turn"
        assert said(tmp_path) == [] and set(unseen(tmp_path).values()) == {why}

    def test_a_collator_of_ones_own(self, tmp_path):
        def collator(rows):
            raise AssertionError("the preflight called it")

        trainer = tiny.make_trainer("sft", tmp_path, [DiagnosticsCallback()], max_steps=1, data_collator=collator)
        with pytest.raises(AssertionError, match="the preflight called it"):
            trainer.train()
        why = "a data collator of one's own (function) may change with each call"
        assert unseen(tmp_path)["masked labels"] == unseen(tmp_path)["end token"] == why

    def test_rows_that_are_made_while_they_are_read(self, tmp_path):
        rows = tokenized(texts()).add_column("labels", tokenized(texts())["input_ids"][:])
        rows = rows.with_transform(lambda batch: batch)
        train(
            tmp_path,
            "sft",
            train_dataset=rows,
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
        )
        assert set(unseen(tmp_path).values()) == {"a transform makes the rows while they are read"}


def attributes(trainer):
    return {name: id(value) for name, value in vars(trainer).items()}


@pytest.mark.parametrize("kind", ["sft", "dpo", "kto", "grpo", "gkd"])
def test_nothing_of_the_trainer_changes(kind, tmp_path):
    trainer = tiny.make_trainer(kind, tmp_path)
    before, state = attributes(trainer), (random.getstate(), torch.get_rng_state())
    columns, first = trainer.train_dataset.format, trainer.train_dataset[0]
    seen = look_before(trainer, Guard())
    assert attributes(trainer) == before
    assert random.getstate() == state[0] and torch.equal(torch.get_rng_state(), state[1])
    assert trainer.train_dataset.format == columns and trainer.train_dataset[0] == first
    assert set(DATA_CHECKS) <= set(seen.seconds)


class TestUntrained:
    """Which rows of a frozen embedding count as never trained."""

    WEIGHT = torch.randn(200, 64, generator=torch.Generator().manual_seed(0))

    def rows(self, row):
        weight = self.WEIGHT.clone()
        weight[7] = row
        return untrained(weight, [3, 7], [3, 5, 7])

    def test_a_trained_row(self):
        assert self.rows(self.WEIGHT[7]) == [False, False]
        assert self.rows(0.5 * self.WEIGHT[7]) == [False, False]

    @pytest.mark.parametrize(
        "row", [torch.zeros(64), 1e-3 * WEIGHT[7], WEIGHT.mean(0), WEIGHT.mean(0) + 1e-3 * WEIGHT[9]], ids=range(4)
    )
    def test_a_row_that_was_never_trained(self, row):
        assert self.rows(row) == [False, True]

    def test_twins(self):
        assert self.rows(self.WEIGHT[3]) == [True, True]
        assert self.rows(self.WEIGHT[5]) == [False, True]

    def test_half_precision(self):
        weight = self.WEIGHT.to(torch.bfloat16)
        weight[7] = 0
        assert untrained(weight, [3, 7], [3, 7]) == [False, True]

    def test_no_tokens(self):
        assert untrained(self.WEIGHT, [], []) == []


class TestKeys:
    def test_equal_rows_have_equal_keys(self):
        rows = Dataset.from_dict({"input_ids": [[1, 2], [3], [1, 2], [], [3], [2, 1]]})
        one, two, three, empty, five, turned = keys(rows, ("input_ids",))
        assert (one, two) == (three, five) and len({one, two, empty, turned}) == 4

    def test_of_chosen_rows(self):
        rows = Dataset.from_dict({"input_ids": [[1, 2], [3], [1, 2]]})
        assert keys(rows.select([2, 1]), ("input_ids",)) == keys(rows.select([0, 1]), ("input_ids",))

    def test_all_columns_count(self):
        rows = Dataset.from_dict({"prompt_ids": [[1], [1, 2]], "completion_ids": [[2, 3], [3]], "label": [True, True]})
        one, two = keys(rows, ("prompt_ids", "completion_ids", "label"))
        assert one != two

    def test_conversations(self):
        rows = chat_dataset(ROWS)
        assert len(set(keys(rows, ("messages",)))) == len({str(row) for row in rows["messages"]})

    def test_only_the_first_rows(self):
        rows = Dataset.from_dict({"prompt": [str(i) for i in range(COMPARED + 700)]})
        assert len(keys(rows, ("prompt",))) == COMPARED

    def test_other_columns(self):
        with pytest.raises(Unseen, match="the evaluation rows have other columns than the training rows"):
            keys(text_dataset(4), ("input_ids",))


@pytest.mark.parametrize(
    ("prompt", "empty"),
    [
        ("", True),
        (" \n", True),
        ("a", False),
        ([], True),
        ([{"role": "user", "content": ""}], True),
        ([{"role": "user", "content": "a"}], False),
    ],
)
def test_empty_prompts(prompt, empty):
    assert is_empty(prompt) is empty


@pytest.mark.parametrize(("rows", "count"), [(1, 1), (255, 255), (256, 256), (257, 129), (1000, 250)])
def test_a_sample_is_spread_over_the_rows(rows, count):
    found = [row["i"] for row in sampled(Dataset.from_dict({"i": list(range(rows))}))]
    stretch = -(-rows // count)
    assert [i // stretch for i in found] == list(range(count))


def test_a_sample_of_rows_that_come_in_turns_has_all_of_them():
    rows = Dataset.from_dict({"i": list(range(1024))})
    found = [row["i"] % 4 for row in sampled(rows)]
    assert all(40 <= found.count(turn) <= 90 for turn in range(4))
    assert [row["i"] % 4 for row in sampled(rows)] == found


def test_a_sample_of_long_rows_is_smaller():
    assert len(sampled(Dataset.from_dict({"ids": [list(range(20_000))] * 200}))) == 50
