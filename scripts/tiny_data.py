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

"""A seed in, a tiny language out: its tokenizer, its data sets for every trainer and a reward that can be learned."""

import random

from datasets import Dataset
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast


NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
).split()
COLOURS = "red blue green black white pink".split()
ANIMALS = "cat dog fox owl cow hen".split()
VERBS = "sees likes hears".split()
GLUE = "count from tell about the a and .".split()
SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>", "<|system|>", "<|user|>", "<|assistant|>"]
WORDS = SPECIAL + GLUE + NUMBERS + COLOURS + ANIMALS + VERBS

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|> ' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + ' <eos> ' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|> ' }}{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """
    One token per word of the tiny language, with padding, start and end tokens and a chat template.

    Returns:
        [`~transformers.PreTrainedTokenizerFast`]:
            A tokenizer of 50 tokens; every text of this module comes back unchanged from encode and decode.
    """
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    core.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        extra_special_tokens=SPECIAL[4:],
        chat_template=CHAT_TEMPLATE,
        model_max_length=128,
    )


def counting(rng: random.Random) -> tuple[str, str]:
    """A prompt and its right answer: the 2 to 5 numbers that follow a number."""
    start, length = rng.randrange(14), rng.randint(2, 5)
    return f"count from {NUMBERS[start]}", " ".join(NUMBERS[start + 1 : start + 1 + length]) + " ."


def _thing(rng: random.Random, article: str, animal: str) -> list[str]:
    return [article, *rng.choices(COLOURS, k=rng.randint(0, 2)), animal]


def story(rng: random.Random) -> tuple[str, str]:
    """A prompt and one of many answers, so that no model can reach a loss of zero."""
    animal, words = rng.choice(ANIMALS), []
    for clause in range(2 if rng.random() < 0.3 else 1):
        words += ["and"] if clause else []
        words += _thing(rng, "the", animal) + [rng.choice(VERBS)] + _thing(rng, "a", rng.choice(ANIMALS))
    return f"tell about the {animal}", " ".join(words) + " ."


def _mistake(rng: random.Random, right: str) -> str:
    """The right answer with one or two wrong numbers, or an answer to another question."""
    if rng.random() < 0.5:
        return story(rng)[1]
    words = right.split()
    for i in rng.sample(range(len(words) - 1), k=min(2, len(words) - 1)):
        words[i] = rng.choice([number for number in NUMBERS if number != words[i]])
    return " ".join(words)


def text_dataset(rows: int = 1024, seed: int = 0) -> Dataset:
    """
    Plain texts (`text`), half counting and half stories, for SFT.

    Args:
        rows (`int`, *optional*, defaults to `1024`):
            Number of rows.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the generator.

    Returns:
        [`~datasets.Dataset`]
    """
    rng = random.Random(seed)
    return Dataset.from_list([{"text": " ".join(rng.choice([counting, story])(rng))} for _ in range(rows)])


def preference_dataset(rows: int = 1024, seed: int = 0, noise: float = 0.1) -> Dataset:
    """
    Preference pairs (`prompt`, `chosen`, `rejected`): right counting against a mistake.

    Args:
        rows (`int`, *optional*, defaults to `1024`):
            Number of rows.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the generator.
        noise (`float`, *optional*, defaults to `0.1`):
            Share of the pairs with swapped labels, as human labels have; without it every margin runs away.

    Returns:
        [`~datasets.Dataset`]
    """
    rng, pairs = random.Random(seed), []
    for _ in range(rows):
        prompt, right = counting(rng)
        answers = [right, _mistake(rng, right)]
        if rng.random() < noise:
            answers.reverse()
        pairs.append({"prompt": prompt, "chosen": f" {answers[0]}", "rejected": f" {answers[1]}"})
    return Dataset.from_list(pairs)


def unpaired_dataset(rows: int = 1024, seed: int = 0, noise: float = 0.1, desirable: float = 0.5) -> Dataset:
    """
    Judged single answers (`prompt`, `completion`, `label`) for KTO.

    Args:
        rows (`int`, *optional*, defaults to `1024`):
            Number of rows.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the generator.
        noise (`float`, *optional*, defaults to `0.1`):
            Share of rows with the wrong label.
        desirable (`float`, *optional*, defaults to `0.5`):
            Share of rows labelled `True`; `0.0` and `1.0` give a data set of one class.

    Returns:
        [`~datasets.Dataset`]
    """
    rng, judged = random.Random(seed), []
    for pair in preference_dataset(rows, seed, noise):
        label = rng.random() < desirable
        answer = pair["chosen"] if label else pair["rejected"]
        judged.append({"prompt": pair["prompt"], "completion": answer, "label": label})
    return Dataset.from_list(judged)


def prompt_dataset(rows: int = 1024, seed: int = 0) -> Dataset:
    """
    Prompts (`prompt`) that ask for a story, for the online trainers.

    Args:
        rows (`int`, *optional*, defaults to `1024`):
            Number of rows.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the generator.

    Returns:
        [`~datasets.Dataset`]
    """
    rng = random.Random(seed)
    return Dataset.from_list([{"prompt": story(rng)[0]} for _ in range(rows)])


def chat_dataset(rows: int = 1024, seed: int = 0) -> Dataset:
    """
    The texts of [`text_dataset`] as conversations (`messages`) of one user and one assistant turn.

    Args:
        rows (`int`, *optional*, defaults to `1024`):
            Number of rows.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the generator.

    Returns:
        [`~datasets.Dataset`]
    """
    rng, chats = random.Random(seed), []
    for _ in range(rows):
        prompt, answer = rng.choice([counting, story])(rng)
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        chats.append({"messages": turns})
    return Dataset.from_list(chats)


def tokenized_prompt_dataset(rows: int = 1024, seed: int = 0) -> Dataset:
    """
    The prompts of [`prompt_dataset`] as token ids (`input_ids`), as PPO wants them.

    Args:
        rows (`int`, *optional*, defaults to `1024`):
            Number of rows.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the generator.

    Returns:
        [`~datasets.Dataset`]
    """
    tokenizer = tiny_tokenizer()
    return Dataset.from_list(
        [{"input_ids": tokenizer(row["prompt"])["input_ids"]} for row in prompt_dataset(rows, seed)]
    )


def colour_variety(completions: list[str], **kwargs) -> list[float]:
    """
    A reward that can be learned and that differs inside a group from the first step: how many colours a story names.

    A story that does not come to its end gets nothing, so that a policy cannot win by never stopping.

    Args:
        completions (`list[str]`):
            Answers of the policy.
        **kwargs:
            The other columns that TRL hands to a reward function.

    Returns:
        `list[float]`:
            Share of the six colours in each finished completion, in `[0, 1]`.
    """
    answers = [completion.split() for completion in completions]
    return [len(set(answer) & set(COLOURS)) / len(COLOURS) * (answer[-1:] == ["."]) for answer in answers]
