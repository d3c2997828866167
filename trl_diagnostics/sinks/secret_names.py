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

"""The name of a field, variable or option goes in, whether it holds a secret comes out."""

import re
from functools import lru_cache


WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
SECRET = re.compile(
    r"passw(?:or)?d|passphrase|passcode|secret|credential|authorization|cookies?(?:value|header|jar|string|session|data|id)?\Z|webhook|mnemonic|connectionstr"
    r"|(?:api|access|private|account|signing|encryption|ssh|auth|master|admin|deploy|license|storage|wandb|openai"
    r"|anthropic|hf|aws|azure|gcp|kaggle)keys?(?![a-z])"
)
LAST_SECRET = {"auth", "pwd", "psw", "pw", "dsn", "jwt"}
BEFORE_PASS = {"user", "db", "database", "smtp", "mysql", "postgres", "pg", "redis", "ftp", "http", "proxy", "root"}
# What a name may say about a secret without holding it: `hub_token_path`, `password_hash`.
HARMLESS_LAST = set(
    "hash sha digest path file dir folder count length len size type kind ttl expiry expires expiration enabled "
    "required policy field column name env var fn func function manager limit usage index reward rewards score".split()
)
# `<word>_token` is an access token unless the word is one of a vocabulary; `<word>_tokens` only after one of these.
ACCESS = set(
    "access admin api app auth authentication aws azure bearer bot ci client csrf databricks deploy discord gcp gh "
    "git github gitlab hf hub huggingface jwt login npm oauth openai personal private pypi refresh registry security "
    "service session slack telegram vault wandb xsrf".split()
)
VOCABULARY = set(
    "pad padding eos bos unk unknown sep cls mask image img video audio vision speech modality latent patch special "
    "stop start end begin think thinking reasoning tool call response answer prompt instruction assistant system per "
    "each every next last first new prev previous current max min num mean total by text input output label target "
    "generated sampled decoder encoder fim prefix suffix middle placeholder object query draft top single one sub byte "
    "language word bad forced eot eom eoi boi soi boa eoa turn chat control separator delimiter split n".split()
)


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether a field, variable, key or option of this name holds a secret: `hub_token` does, `pad_token` does not."""
    words = [word.lower() for word in WORD.findall(name)]
    if not words or words[-1] in HARMLESS_LAST or name in ("PWD", "OLDPWD"):  # where a shell is and was
        return False
    if SECRET.search("".join(words)) or words[-1] in LAST_SECRET or (words == ["pass"] and name.startswith("-")):
        return True
    return (words[-1] == "pass" and words[-2:-1] and words[-2] in BEFORE_PASS) or _is_access_token(words)


def _is_access_token(words: list[str]) -> bool:
    if words[-1] == "token":
        return len(words) == 1 or words[-2] not in VOCABULARY
    if words[-1].endswith("token"):  # authtoken
        return words[-1].removesuffix("token") in ACCESS
    pairs = zip(words, words[1:], strict=False)
    return any(first in ACCESS and second in ("token", "tokens") for first, second in pairs)


@lru_cache(maxsize=4096)
def is_key_name(name: str) -> bool:
    """Whether it is the key of something, of a service or of a column: `judge_key`, `image_key`."""
    return WORD.findall(name)[-1:] in (["key"], ["Key"], ["KEY"])


def may_hold_secret(name: str) -> bool:
    """Whether a value under this name may be a secret, if only by its form."""
    return is_secret_name(name) or is_key_name(name)
