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

"""Any text or JSON value goes in, the same without passwords, keys and tokens comes out."""

import os
import re
import sys
from functools import lru_cache
from typing import Any

from .secret_names import is_key_name, is_secret_name, may_hold_secret


REDACTED = "<redacted>"

HINT = re.compile(  # a text without any of these has no such name
    r"(?i)pass|secret|credential|auth|cookie|webhook|mnemonic|connection|key|token|pwd|psw|pw|dsn|jwt|log_?in|sign_?in"
)
VOCABULARY_ENTRY = re.compile(r"<[^<>@:]{1,40}>|\[[A-Za-z_0-9 ]{1,24}\]|\d{1,6}")
PASSES = re.compile(r"[\d.,/%]+|ok|yes|no|forward|backward|first|second")  # what a `pass` that is no password may be
LOGIN = re.compile(r"(?i)log_?in|sign_?in|authenticate")
COUNT = re.compile(r"\d{1,4} of \d{1,4}|\d{1,3}/\d{1,3}")
NOT_SET = {"", "None", "none", "null", "True", "False", "true", "false", "str", "bytes", "int", "bool"}

# --- Texts that are a secret wherever they stand ---------------------------------------------------------------------

PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,20}-----.*?(?:-----END [A-Z0-9 ]{0,60}-----|\Z)"
    # a diff may show the end of a key without its beginning
    r"|(?:^[-+ ]?[A-Za-z0-9+/=]{16,80}[ \t\r]*\n){1,60}[-+ ]?-----END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,20}-----",
    re.DOTALL | re.MULTILINE,
)
URL_USER = re.compile(
    r"(?P<before>(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{0,30}://)(?!git@|<redacted>@|\[)"
    r"(?:[^\s/?#@:\"'<>]{0,300}:(?!\d{1,5}(?:[/?#\s]|$))[^\s\"'<>]{0,300}|[^\s/?#@:\"'<>]{1,300})@"
)
URL_PART = re.compile(
    r"(?P<before>(?i:(?<![\w-])x-(?:amz|goog)-signature=|[?&](?:sig|signature|code|key|jwt|awsaccesskeyid|googleaccessid|x-(?:amz|goog)-"
    r"(?:signature|credential|security-token))=)|hooks\.slack\.com/\w+/|discord(?:app)?\.com/api/webhooks/"
    r"|api\.telegram\.org/bot|webhook\.office\.com/)[^\s&#\"'<>]+"
)
HEADER = re.compile(
    r"(?P<before>(?P<quote>[\"'])?(?<![\w-])(?i:(?:proxy-|x-)?authorization|(?:set-)?cookie)[ \t]*:(?![ \t]*(?i:none|null)[ \t\"']*(?:\n|\Z))[ \t]*)"
    r"(?(quote)(?:(?!(?P=quote))[^\n])+|[^\n]+)"
)
SCHEME = re.compile(
    r"(?P<before>(?<![A-Za-z])(?:[Bb]earer|BEARER|[Bb]asic)[ \t]+)"
    r"(?=[^\s\"']{0,80}(?:\d|=|[a-z][A-Z]))[A-Za-z0-9+/=._~-]{8,}"
)
COMMAND = re.compile(  # told by its place alone: wandb login KEY, curl -u user:password, .netrc
    r"(?P<before>wandb(?:\.login\((?:key=)?|[ \t]+login[ \t]+(?:--?[\w-]+[ \t]+){0,4})[\"']?"
    r"|(?:(?<=\s)|^)(?:-u|--user|--proxy-user)[ =][\"']?(?=[^\s\"':=]*:)"
    r"|(?:sshpass|mysql|mysqldump)[ \t]+-p[ \t]?|(?i:api key provided: )|<(?i:password|secret|token|api_?key)>"
    r"|(?<![\w-])login[ \t\n]+\S{1,100}[ \t\n]+password[ \t]+)(?![-<)])[^\s\"')]+"
)
KNOWN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:hf_|api_org_)(?:oauth_|jwt_)?[A-Za-z0-9]{20,}"  # Hugging Face
    r"|[sp]k-(?=[\w-]{0,60}[0-9A-Z])[\w-]{20,}"  # OpenAI, Anthropic, OpenRouter, DeepSeek, Langfuse
    r"|(?:csk-|gsk_|tgp_v1_|pcsk_|lsv2_|xai-|nvapi-|pplx-|wandb_v1_|ntn_|sntr|lin_api_|dckr_|hvs\.|hvb\.|ATATT3|glsa_"
    r"|pypi-AgE|tskey-)(?=[\w.-]{0,60}\d)[\w.-]{20,}"  # other hosts of models, packages and services
    r"|(?:npm_|r8_|fw_|shp(?:at|ca|pa|ss)_|do[por]_v1_|secret_)(?=[A-Za-z0-9]{0,60}\d)[A-Za-z0-9]{22,}"
    r"|[srp]k_(?:live|test|prod)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/=]{20,}"  # Stripe
    r"|(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA|LTAI)[A-Za-z0-9]{16,}"  # AWS, Alibaba
    r"|AIza[\w-]{30,}|ya29\.[\w.-]{20,}|GOCSPX-[\w-]{20,}|1//0[\w-]{30,}"  # Google
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|gl[a-z]{2,6}-[\w.-]{20,}"  # GitHub, GitLab
    r"|xox[a-z](?:-\d)?-[\w-]{10,}|xapp-[\w-]{10,}"  # Slack
    r"|dapi[0-9a-f]{32}|SG\.[\w-]{16,}\.[\w-]{16,}|\w{3}\dQ~[\w.~-]{30,}|\d{8,10}:AA[\w-]{30,}|SK[0-9a-f]{32}"
    r"|(?:key|local)-[0-9a-f]{32,}|AGE-SECRET-KEY-1[A-Z0-9]{20,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*){0,3})"  # JSON web tokens
)
OF_A_USER = re.compile(  # {"username": "bob", "key": "..."}, the file of Kaggle
    r"(?P<before>[{(](?=[^{}()]{0,300}?(?<![\w.-])user_?name\W{0,9}[:=])[^{}()]{0,300}?(?<![\w.-])key\\{0,9}[\"']?"
    r"\s{0,99}[:=]\s{0,99}\\{0,9}[\"'])[^\s\\\"']+"
)
ALONE = (URL_USER, URL_PART, HEADER, SCHEME, COMMAND, KNOWN, OF_A_USER)

# --- Texts where a name stands before the value ----------------------------------------------------------------------

NAME = re.compile(
    r"(?P<line>^[-+ \t]{0,40})?(?P<opened>\\{0,9}[\"'])?(?<![\w.-])(?P<name>(?P<dash>--?)?[A-Za-z_][\w.-]*)"
    r"(?:(?P<closed>\\{0,9}[\"'])?\]?(?:[ \t]{0,4}:[ \t]{0,4}[\w.\[\] |]{1,80}?(?=[ \t]{0,4}=[^=]))?"
    r"(?P<sep>[ \t]{0,9}(?:=>|:=|[!=]?=|:)[ \t]{0,9}"  # name = value, "name": value, name: type = value
    # a text may begin on the next line; below `class Token:` is none
    r"(?:(?(closed)|(?(line)|(?<!:)(?<!:[ \t])))\(?\\?(?:\r?\n[-+ \t]{0,40}){1,3}(?=[bBrRuUfF]{0,2}\\{0,9}[\"']))?)"
    r"|\\{0,9}[\"'][ \t]{0,9},\s{0,99}(?:[^()\"']{0,99}default[ \t]?=[ \t]?)?(?=\\{0,9}[\"'])"  # ["--name", "value"]
    r"|(?P<call>\([-+\s]{0,99}(?=[bBrRuUfF]{0,2}\\{0,9}[\"']))"  # login("value")
    r"|(?(dash)(?:[ \t]|\\\r?\n){1,40}(?!-)|(?!))"  # --name value
    r"|(?P<said>(?i:(?<=word)|(?<=passwd)|(?<=pwd)|(?<=phrase)|(?<=passcode)|(?<=secret)|(?<=token)|(?<=key))"
    r"[ \t]{1,9}(?:(?i:is|was)[ \t:]{1,9})?))",  # the name is value, (name value), name<TAB>value
    re.MULTILINE,
)
QUOTED = re.compile(
    r"(?:[\w.]{1,60}\()?[bBrRuUfF]{0,2}(?P<quote>\\{0,9}(?:\"{3}|'{3}|[\"'`]))"
    r"(?:(?<=\"{3}|'{3})\\?\r?\n[-+ \t]{0,40})?(?P<value>(?:(?!(?P=quote))(?:\\.|[^\n]))*)"
)
UNTIL = {quote: re.compile(f"(?P<value>[^\n{quote}]*)") for quote in "\"'"}
BRACKETS = re.compile(r"[(\[{](?P<value>[^\n)\]}]*)")
CODE = re.compile(r"(?P<value>)[A-Za-z_][\w.]*[(\[]")
BEFORE = re.compile(r"[A-Za-z]+[ \t]\Z")
LINE = re.compile(r"(?P<value>[^\n\"'#]+)")
PROSE = re.compile(r"[\"']?(?P<value>[^\s\"']{12,})")
STRINGS = re.compile(  # one or more, as arguments of a call
    r"[bBrRuUfF]{0,2}\\{0,9}[\"'](?P<value>(?:[^\n]|(?<=,)\n)*?)"
    r"(?:\\{0,9}[\"'](?=\s{0,99}(?:\)|,(?!\s{0,99}[bBrRuUfF]{0,2}\\{0,9}[\"'])))|(?<!,)$)",
    re.MULTILINE,
)
CALL = re.compile(r"[\w.]{1,60}\((?:\s{0,99}[\w.]{1,60}\s{0,9},){0,3}\s{0,99}" + STRINGS.pattern, re.MULTILINE)
BLOCK = re.compile(  # of YAML, below the name
    r"[|>][-+\d]{0,2}[ \t]*\r?\n(?P<indent>[-+]?[ \t]{1,40})(?P<value>[^\n]+(?:\n(?P=indent)[^\n]+)*)"
)
BELOW = re.compile(r"\r?\n[-+]?[ \t]{1,40}(?P<value>[^\s\"']+(?<!:))(?=[ \t]*$)", re.MULTILINE)
# What `judge_key` holds: no name of a column or model, such as `pixel_values_2` or `Qwen/Qwen2.5-0.5B`.
WORDY = r"[A-Za-z]*(?:\d{1,5}[A-Za-z]{0,3})?"
LIKE_A_KEY = re.compile(
    r"(?:[\w.]{1,60}\()?(?:\r?\n[-+ \t]{1,40})?[bBrRuUfF]{0,2}\\{0,9}[\"'`]{0,3}"
    r"(?P<value>(?:hf_|gsk_|[cprs]k-|xai-)[\w-]{6,200}|(?!\w{1,9}://)(?=[^\d\s]{0,200}\d)(?=[^A-Za-z\s]{0,200}[A-Za-z])"
    rf"(?!{WORDY}(?:[_./:-]{WORDY})+(?![\w+/=.~:-]))[\w+=][\w+/=.~:-]{{11,200}})(?![\w+/=.~:(\[-])"
)
LAST = re.compile(r"(?P<value>\S+)(?=[ \t]*$)", re.MULTILINE)
# In prose a value is told from a word by a digit or sign in it.
SAID = re.compile(
    r"(?![-/.~$\[<({]|\w{1,9}://)[\"'`]?(?=\S{0,40}(?:\d|[@#%^&!]\w))(?P<value>[^\s\"'`<>()\[\]{},;]{4,})"
)
SAID_TOKEN = re.compile(
    r"(?![-/.~$\[<({]|\w{1,9}://)[\"'`]?(?=\S{0,40}\d)(?=\S{0,40}[A-Za-z])(?P<value>[^\s\"'`<>()\[\]{},;|]{6,})"
)
BARE = re.compile(r"(?P<value>(?:[^\s\"'&;,`]|,(?!\s|\w+=|[\"'])|[\"'](?=\w))+)")


def redact_text(text: str) -> str:
    """
    Hide the secrets in a text: a command line, a URL, a diff, a traceback, a log.

    A secret is told by its form (`hf_...`, a private key, the password in a URL), by the name beside it
    (`--api-key=...`, `"password": "..."`), or by being the value of an environment variable with such a name.

    Args:
        text (`str`):
            Any text.

    Returns:
        `str`: the text with `<redacted>` in place of each secret. Hashes, vocabulary tokens and counts stay.
    """
    return _text(text, _given_secrets())


def redact(value: Any) -> Any:
    """
    Hide the secrets in a JSON value, in its keys too.

    Args:
        value (`Any`):
            What `json.dumps` takes. It is not changed.

    Returns:
        `Any`: a copy of the same shape with `<redacted>` in place of each secret.
    """
    return _walk(value, "", _given_secrets())


@lru_cache(maxsize=4096)
def redact_name(metric: str) -> str:
    """[`redact_text`] for names that come again and again."""
    return redact_text(metric)


def is_secret(name: str, value: Any) -> bool:
    """Whether a value is a secret by its name, or by its name and form: `judge_key` may be that of a column, too."""
    return is_secret_name(name) or is_key_name(name) and isinstance(value, str) and not _is_none(name, value)


def _is_none(name: str, value: str) -> bool:
    """Whether a value under a secret name is no secret: not set, already hidden, or an entry of a vocabulary."""
    if value.strip() in NOT_SET or value.startswith(REDACTED):
        return True
    if COUNT.fullmatch(value.strip()):
        return True
    if not is_secret_name(name) and is_key_name(name):
        return LIKE_A_KEY.fullmatch(value) is None
    if name.lower().endswith("pass") and PASSES.fullmatch(value):
        return True
    return "token" in name.lower() and VOCABULARY_ENTRY.fullmatch(value) is not None


def _given_secrets() -> re.Pattern | None:
    """Those of the environment and the command line, for they stand in other texts without their names."""
    options = [(name, value) for name, value in zip(sys.argv, sys.argv[1:], strict=False) if name.startswith("-")]
    assigned = [argument.partition("=")[::2] for argument in sys.argv]
    given = [*os.environ.items(), *options, *assigned]
    # shorter ones are words that stand in other places, too
    long = [(name, value) for name, value in given if len(value) >= 8 and not value.startswith("-")]
    return _any_of(frozenset(value for name, value in long if is_secret(name, value) and not _is_none(name, value)))


@lru_cache(maxsize=4)
def _any_of(values: frozenset[str]) -> re.Pattern | None:
    return re.compile("|".join(map(re.escape, sorted(values, key=len, reverse=True)))) if values else None


def _walk(value: Any, name: str, known: re.Pattern | None) -> Any:
    """`name` is the secret name under which the value stands, if any."""
    if isinstance(value, dict):
        return _walk_dict(value, name, known)
    if isinstance(value, list | tuple):
        return _walk_list(value, name, known)
    if isinstance(value, str):
        return REDACTED if name and not _is_none(name, value) else _text(value, known)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return REDACTED if is_number and is_secret_name(name) and "token" not in name.lower() else value


def _walk_dict(value: dict, name: str, known: re.Pattern | None) -> dict:
    out: dict[Any, Any] = {}
    told = value.get("name")  # {"name": "HF_TOKEN", "value": "..."}, as containers list their environment
    for key, inner in value.items():
        label = told if key == "value" and isinstance(told, str) else key
        if key == "key" and not {"secret", "username"}.isdisjoint(value):  # of an object store, of Kaggle
            label = "secret key"
        label = "--pass" if key == "pass" and isinstance(inner, str) else label
        label = label if isinstance(label, str) else ""
        under = label if is_secret_name(label) else name or (label if is_key_name(label) else "")
        shown = _text(key, known) if isinstance(key, str) else key
        while shown in out:  # two keys that differ only in their secret
            shown += "'"
        out[shown] = _walk(inner, under, known)
    return out


def _walk_list(values: list | tuple, name: str, known: re.Pattern | None) -> list:
    """A list may be a command line, or hold pairs of a name and a value."""
    out: list[Any] = []
    before: Any = ""
    for value in values:
        if isinstance(value, str):
            follows = before.startswith("-") and "=" not in before and not value.startswith("--")
            out.append(_argument(value, before if follows and may_hold_secret(before) else name, known))
        elif (
            isinstance(value, list | tuple)
            and [type(one) for one in value] == [str, str]
            and may_hold_secret(value[0])
        ):
            out.append([value[0], _walk(value[1], value[0], known)])
        else:
            out.append(_walk(value, name, known))
        before = value if isinstance(value, str) else ""
    return out


def _argument(value: str, name: str, known: re.Pattern | None) -> str:
    option, equals, rest = value.partition("=")
    if equals and option.startswith("-") and " " not in option and may_hold_secret(option):
        return f"{option}={_walk(rest, option, known)}"  # to the end, for it may hold spaces
    return _walk(value, name, known)


def _text(text: str, known: re.Pattern | None) -> str:
    if known:
        text = known.sub(REDACTED, text)
    if "PRIVATE KEY-" in text:
        text = PRIVATE_KEY.sub(REDACTED, text)
    for pattern in ALONE:
        text = pattern.sub(_after, text)
    return _beside_names(text) if HINT.search(text) else text


def _after(match: re.Match) -> str:
    before = match.groupdict().get("before") or ""
    end = "@" if match.re is URL_USER else ""
    return f"{before}{REDACTED}{end}"


def _beside_names(text: str) -> str:
    parts, done = [], 0
    match = NAME.search(text)
    while match:
        after = match.end("name")  # `error: password = value` looks like an annotation of `error`
        if _names_secret(text, match):
            start, end = _span(text, match)
            after = max(end, after)
            if not _is_none(_name(text, match), text[start:end]):
                parts += [text[done:start], REDACTED]
                done = end
        match = NAME.search(text, after)
    return "".join([*parts, text[done:]])


def _names_secret(text: str, match: re.Match) -> bool:
    """Whether a name is that of a secret by what stands around it: `pass=x` and `login("x")` are, `pass: 3` is not."""
    name = match["name"]
    if match["call"]:
        last = name.rpartition(".")[2]
        return bool(
            LOGIN.fullmatch(last)
            or last.endswith("Auth")
            or last.lower().startswith(("set", "secret"))
            and is_secret_name(last)
        )
    if match["said"]:
        return may_hold_secret(_name(text, match))
    if name.lower() == "pass":
        return match["sep"] == "=" or (match["sep"] or "").strip() == ":" and name == "pass"
    return may_hold_secret(name)


def _name(text: str, match: re.Match) -> str:
    """In a sentence with the word before it: api key, pad token."""
    words = match["said"] and BEFORE.search(text, max(0, match.start("name") - 24), match.start("name"))
    return f"{words[0]}{match['name']}" if words else match["name"]


def _span(text: str, match: re.Match) -> tuple[int, int]:
    """Where the value beside a name begins and ends."""
    name = _name(text, match)
    shapes = (LIKE_A_KEY,) if is_key_name(name) and not is_secret_name(name) else _shapes(match)
    for shape in shapes:
        if found := shape.match(text, match.end()):
            value = found["value"].rstrip(")]},.:" if shape in (BARE, LINE, SAID, SAID_TOKEN, LIKE_A_KEY) else "")
            return found.start("value"), found.start("value") + len(value)
    return match.end(), match.end()


def _shapes(match: re.Match) -> tuple[re.Pattern, ...]:
    """The forms that the value beside a name may have, by what stands around the name."""
    sep = match["sep"] or ""
    if match["call"]:
        return (STRINGS,)
    if match["said"]:
        return _spoken(match)
    lone = match["name"].lower() == "token"
    if lone and sep.strip() == ":" and match["line"] is None and not match["closed"]:
        return (PROSE,)  # "Unexpected token: }" hides nothing
    if sep and match["opened"] and not match["closed"]:
        return (UNTIL[match["opened"][-1]],)  # '--password=two words'
    if sep.strip() == ":" and match["name"] == "pass" and not match["closed"]:
        return (SAID,) if match["line"] is not None else ()
    if sep.strip() == ":" and match["line"] is not None and not lone:
        return (QUOTED, BLOCK, BELOW, BRACKETS, LINE)  # YAML
    return (CALL, QUOTED, BRACKETS, CODE, BARE) if sep.endswith(" ") else (CALL, QUOTED, BRACKETS, BARE)


def _spoken(match: re.Match) -> tuple[re.Pattern, ...]:
    """The forms of a value that only blanks, a tab or `is` part from its name: "the token is missing" hides nothing."""
    if match["name"].lower().endswith("token"):
        return (SAID_TOKEN,) if match["said"].strip(" ") else (LIKE_A_KEY,)
    return (SAID, LAST) if "\t" in match["said"] and match["line"] is not None else (SAID,)
