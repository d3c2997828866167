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

"""What is planted is gone, what is no secret stays, and no text is slow or hidden twice."""

import json
import random
import string
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import trl_diagnostics
from trl_diagnostics.sinks.redact import REDACTED, is_secret_name, redact, redact_text


PACKAGE = Path(trl_diagnostics.__file__).parent
LETTERS = string.ascii_letters + string.digits


def made_up(length, alphabet=LETTERS, seed=0):
    """Put together at run time, so that no scanner takes this file for a leak."""
    return "".join(random.Random(seed).choices(alphabet, k=length)) + "7aB"


LOWER_HEX = "0123456789abcdef"
WORD = "zq" + made_up(14)  # a password: of no known form

# Secrets that are told by their form alone.
KNOWN = {
    "hugging face": "hf_" + made_up(34),
    "hugging face organisation": "api_org_" + made_up(34),
    "openai": "sk-" + made_up(48),
    "openai project": "sk-proj-" + made_up(60, LETTERS + "_-"),
    "anthropic": "sk-ant-api03-" + made_up(90, LETTERS + "_-"),
    "aws key id": "AKIA" + made_up(16, string.ascii_uppercase + "234567"),
    "aws temporary key id": "ASIA" + made_up(16, string.ascii_uppercase + "234567"),
    "google api key": "AIza" + made_up(35),
    "google access token": "ya29." + made_up(60),
    "google client secret": "GOCSPX-" + made_up(28),
    "github": "ghp_" + made_up(36),
    "github fine-grained": "github_pat_" + made_up(22) + "_" + made_up(59),
    "github app": "ghs_" + made_up(36),
    "gitlab": "glpat-" + made_up(20),
    "gitlab job": "glcbt-" + made_up(24),
    "slack bot": "xoxb-" + made_up(12, string.digits) + "-" + made_up(24),
    "slack app": "xapp-1-" + made_up(40),
    "wandb": "wandb_v1_" + made_up(40),
    "wandb local": "local-" + made_up(40, LOWER_HEX).lower().replace("b", "a"),
    "npm": "npm_" + made_up(36),
    "pypi": "pypi-AgE" + made_up(80),
    "stripe": "sk_live_" + made_up(24),
    "databricks": "dapi" + "".join(random.Random(1).choices(LOWER_HEX, k=32)),
    "sendgrid": "SG." + made_up(22) + "." + made_up(43),
    "groq": "gsk_" + made_up(48),
    "nvidia": "nvapi-" + made_up(60),
    "replicate": "r8_" + made_up(37),
    "langsmith": "lsv2_pt_" + made_up(32, LOWER_HEX) + "_" + made_up(10, LOWER_HEX),
    "vault": "hvs." + made_up(90),
    "telegram": "123456789:AA" + made_up(33),
    "json web token": f"eyJ{made_up(20)}.eyJ{made_up(40)}.{made_up(43)}",
    "private key": f"-----BEGIN RSA PRIVATE KEY-----\n{made_up(64)}\n{made_up(64)}\n-----END RSA PRIVATE KEY-----",
    "openssh key": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{made_up(70)}\n-----END OPENSSH PRIVATE KEY-----",
    "key in json": f"-----BEGIN PRIVATE KEY-----\\n{made_up(64)}\\n-----END PRIVATE KEY-----\\n",
    "cut off key": f"-----BEGIN EC PRIVATE KEY-----\n{made_up(64)}\n{made_up(30)}",
}

# Secrets that are told by what stands around them: the text, and what must be left of it.
IN_TEXT = [
    ("https://bob:{}@example.com/a.git", "https://<redacted>@example.com/a.git"),
    ("https://{}@huggingface.co/org/model", "https://<redacted>@huggingface.co/org/model"),
    ("https://oauth2:{}@gitlab.com/a/b.git", "https://<redacted>@gitlab.com/a/b.git"),
    ("postgresql+psycopg2://app:p@{}/x@db:5432/runs", "postgresql+psycopg2://<redacted>@db:5432/runs"),
    ("redis://:{}@cache:6379/0", "redis://<redacted>@cache:6379/0"),
    ("mongodb+srv://a:{}@c0.mongodb.net/?w=1", "mongodb+srv://<redacted>@c0.mongodb.net/?w=1"),
    ("https://h/x?token={}&b=1", "https://h/x?token=<redacted>&b=1"),
    ("https://h/x?X-Amz-Signature={}&b=1", "https://h/x?X-Amz-Signature=<redacted>&b=1"),
    ("https://h.blob.core.windows.net/c?sv=1&sig={}", "https://h.blob.core.windows.net/c?sv=1&sig=<redacted>"),
    ("https://hooks.slack.com/services/{}", "https://hooks.slack.com/services/<redacted>"),
    ("Server=db;User=a;Password={};Timeout=3", "Server=db;User=a;Password=<redacted>;Timeout=3"),
    ("AccountName=a;AccountKey={}==;EndpointSuffix=x", "AccountName=a;AccountKey=<redacted>;EndpointSuffix=x"),
    ("train.py --token {} --lr 3", "train.py --token <redacted> --lr 3"),
    ("train.py --api-key={} --lr 3", "train.py --api-key=<redacted> --lr 3"),
    ("train.py password={} lr=3", "train.py password=<redacted> lr=3"),
    ("train.py '--hub_token={} b' x", "train.py '--hub_token=<redacted>' x"),
    ("HF_TOKEN={} python train.py", "HF_TOKEN=<redacted> python train.py"),
    ("export WANDB_API_KEY={}; python x", "export WANDB_API_KEY=<redacted>; python x"),
    ("AWS_SECRET_ACCESS_KEY={}", "AWS_SECRET_ACCESS_KEY=<redacted>"),
    ("wandb login --relogin {}", "wandb login --relogin <redacted>"),
    ("wandb.login(key='{}')", "wandb.login(key='<redacted>')"),
    ("curl -u bob:{} https://h", "curl -u <redacted> https://h"),
    ("curl -H 'Authorization: Bearer {}' https://h", "curl -H 'Authorization: <redacted>' https://h"),
    ("Authorization: Basic {}\nAccept: x", "Authorization: <redacted>\nAccept: x"),
    ("Cookie: a=1; session={}\nAccept: x", "Cookie: <redacted>\nAccept: x"),
    ("Set-Cookie: id={}; HttpOnly", "Set-Cookie: <redacted>"),
    ("{{'headers': {{'X-Api-Key': '{}', 'a': 1}}}}", "{'headers': {'X-Api-Key': '<redacted>', 'a': 1}}"),
    ("got Bearer {} back", "got Bearer <redacted> back"),
    (
        "machine api.wandb.ai\n  login user\n  password {}\n",
        "machine api.wandb.ai\n  login user\n  password <redacted>\n",
    ),
    ("//registry.npmjs.org/:_authToken={}", "//registry.npmjs.org/:_authToken=<redacted>"),
    ('{{"password": "{}", "a": 1}}', '{"password": "<redacted>", "a": 1}'),
    ('{{\\"client_secret\\": \\"{}\\"}}', '{\\"client_secret\\": \\"<redacted>\\"}'),
    ("SFTConfig(lr=1, hub_token='{}', seed=1)", "SFTConfig(lr=1, hub_token='<redacted>', seed=1)"),
    ("SFTConfig(hub_token={}, seed=1)", "SFTConfig(hub_token=<redacted>, seed=1)"),
    ("db_password: {} b c\nlr: 1", "db_password: <redacted>\nlr: 1"),
    ('+    hub_token: str = "{}"', '+    hub_token: str = "<redacted>"'),
    ("-os.environ['HF_TOKEN'] = '{}'", "-os.environ['HF_TOKEN'] = '<redacted>'"),
    ('os.environ.setdefault("HF_TOKEN", "{}")', 'os.environ.setdefault("HF_TOKEN", "<redacted>")'),
    ("['--token', '{}']", "['--token', '<redacted>']"),
    ("auth=('bob', '{}')", "auth=(<redacted>)"),
    ("key=Secret(password=SecretStr('{}'))", "key=Secret(password=SecretStr('<redacted>'))"),
    ("cmd='run --lr 1 password={}'", "cmd='run --lr 1 password=<redacted>'"),
    ('password=ab"{}', "password=<redacted>"),
    ('api_key="""{}"""', 'api_key="""<redacted>"""'),
    ('RuntimeError: password = "{}"', 'RuntimeError: password = "<redacted>"'),
    ("ValueError: api_key = {}", "ValueError: api_key = <redacted>"),
    ("note: password={}, and: b=1", "note: password=<redacted>, and: b=1"),
    ("KAGGLE_KEY={}", "KAGGLE_KEY=<redacted>"),
    ("sshpass -p {} ssh host", "sshpass -p <redacted> ssh host"),
    ("mysql -p{} runs", "mysql -p<redacted> runs"),
    ("X-Amz-Signature={}", "X-Amz-Signature=<redacted>"),
    ("Incorrect API key provided: {}.", "Incorrect API key provided: <redacted>"),
    ("token={}", "token=<redacted>"),
    ("  token: {}", "  token: <redacted>"),
    ('{{\n  "password":\n    "{}",\n  "a": 1}}', '{\n  "password":\n    "<redacted>",\n  "a": 1}'),
    ('+    "password":\n+        "{}"', '+    "password":\n+        "<redacted>"'),
    ('password = (\n    "{}"\n)', 'password = (\n    "<redacted>"\n)'),
    ("password:\n  {}", "password:\n  <redacted>"),
    ("private_key: |\n  {} a\n  b\nlr: 1", "private_key: |\n  <redacted>\nlr: 1"),
    ("train.py --token \\\n  {} --lr 3", "train.py --token \\\n  <redacted> --lr 3"),
    ('login("{}")', 'login("<redacted>")'),
    ('login(token="{}")', 'login(token="<redacted>")'),
    ("hub.login(r'{}', add_to_git_credential=True)", "hub.login(r'<redacted>', add_to_git_credential=True)"),
    ("api.login('bob', \"{}\", True)", "api.login('<redacted>\", True)"),
    ('login(\n    "bob",\n    "{}",\n)', 'login(\n    "<redacted>",\n)'),
    ('client.set_api_key("{}")', 'client.set_api_key("<redacted>")'),
    ('{{"username":"bob","key":"{}"}}', '{"username":"bob","key":"<redacted>"}'),
    ('{{\\"key\\": \\"{}\\", \\"username\\": 1}}', '{\\"key\\": \\"<redacted>\\", \\"username\\": 1}'),
    ("authenticate(username='bob', key='{}')", "authenticate(username='bob', key='<redacted>')"),
    ("user=bob pass={} lr=3", "user=bob pass=<redacted> lr=3"),
    ("send --pass {} now", "send --pass <redacted> now"),
    ('{{"pass": "{}"}}', '{"pass": "<redacted>"}'),
    ("password\t{}", "password\t<redacted>"),
    ("401 (password {})", "401 (password <redacted>)"),
    ("the token is {}.", "the token is <redacted>."),
    ("the hub_token was '{}'", "the hub_token was '<redacted>'"),
    ("your API key is {}, keep it", "your API key is <redacted>, keep it"),
    ('get(url, auth=HTTPBasicAuth("me", "{}"))', 'get(url, auth=HTTPBasicAuth("<redacted>"))'),
    ("get(url, auth=HTTPBasicAuth(user, '{}'))", "get(url, auth=HTTPBasicAuth(user, '<redacted>'))"),
    ('HTTPDigestAuth("me", "{}")', 'HTTPDigestAuth("<redacted>")'),
    ('key = os.getenv("API_KEY", "{}")', 'key = os.getenv("API_KEY", "<redacted>")'),
    ('token = os.environ.get("K", "{}")', 'token = os.environ.get("<redacted>")'),
    ('password=first(\n    "K",\n    "{}",\n)', 'password=first(\n    "<redacted>",\n)'),
    (
        'add_argument("--api-key", type=str, default="{}", help="x")',
        'add_argument("--api-key", type=str, default="<redacted>", help="x")',
    ),
    ('API_TOKEN = """\n{}\n"""', 'API_TOKEN = """\n<redacted>\n"""'),
    ('Invalid token "{}"', 'Invalid token "<redacted>"'),
    ("token {} is expired", "token <redacted> is expired"),
    ("train.py --judge_key {} --lr 3", "train.py --judge_key <redacted> --lr 3"),
    ("GROQ_KEY={} python x", "GROQ_KEY=<redacted> python x"),
    ("mistral_key: {}  # judge", "mistral_key: <redacted>  # judge"),
    ("judgeKey='{}', a=1", "judgeKey='<redacted>', a=1"),
    ("partial(score, key='{}')", "partial(score, key='<redacted>')"),
    ("401 (used key: {}).", "401 (used key: <redacted>)."),
    ("the judge key {} is not valid", "the judge key <redacted> is not valid"),
]

# What looks like one and is none.
KEPT = [
    "tokenizer=Qwen max_tokens=512 num_tokens: 3 tokens_per_second=4.5 token_type_ids=[1, 2]",
    "pad_token='<pad>' eos_token=<|im_end|> mask_token: [MASK] image_token_id=151655 num_image_tokens=3",
    "hub_token=None, use_auth_token=True, push_to_hub_token=False",
    "{'hub_token': '<HUB_TOKEN>'}",
    "commit 3f786850e387550fdab836ed7e6dc881de23001b weights 9b74c9897bac770f sha256=" + "0a" * 32,
    "git@github.com:org/repo.git ssh://git@github.com/org/repo https://github.com/org/repo.git",
    "http://localhost:8000/v1 http://node-1:29500 http://[::1]:80/x@y tcp://10.0.0.1:1234",
    "JSONDecodeError: Unexpected token: '}' at line 3; invalid token: foo",
    "token = tokenizer.decode(ids)  # a token at a time",
    "def login(token: str, password: str | None = None):",
    "password_hash=abc hub_token_path=/root/.cache/token api_key_env=OPENAI_API_KEY",
    "Basic understanding of the Bearer authentication scheme",
    "forward_pass=3 pass@1: 0.4 key=value dataset_key: prompt metric_for_best_model=loss",
    "task-a1-b2-c3-d4-e5-f6-g7-h8-i9 risk-AVERSE-policy-gradient-1 sk-learn",
    "hf_transfer hf_xet hf_internal_testing/tiny-random-model",
    "kl_per_token=0.1 next_token='the' logps/rejected=-3 mean_token_accuracy: 0.9",
    "2026-11-20T14:23:10+00:00 step: 12 loss: 0.69 lr: 3e-04",
    'File "train.py", line 3, in <module>\n    trainer.train()\nValueError: bad value',
    "the token is missing; the token is </s>, the pad token is pad12345 and each token was seen 12 times",
    "password is required (password missing), wrong password again! The secret is out",
    "token\tcount\nthe\t1234\ntoken 1234\n",
    "pass=3 pass=0.31 pass=61% pass=12/20 pass = first, backward pass: 3\npass: 12\nPASS: tests/test_a1.py",
    'login(args) login(os.environ["HF_TOKEN"]) def login(token): print("login", "x1")',
    'tokenizer.set_pad_token("<pad>") add_token("think1") {"key": "loss1", "value": "username"}',
    'class AccessToken:\n    """What a service gives."""',
    "metric_key=eval_top5_accuracy label_key='label' image_key=\"pixel_values_2\" answer_key: 42 sort_key=lambda x1234: x1",
    "model_key=Qwen/Qwen2.5-0.5B-Instruct url_key=https://h/ab12cd34ef56 tls_key=/home/me/keys2/server2048.pem",
    "secret_word_reward: 0.3\ncookie_recipe: sugar\nSecret: 3 of 4\nauthorization: none\nCookie: None",
    'add_argument("--tokenizer", default="a1b2c3d4e5f6g7") token "abc" is expired, invalid token abc',
    "KeyError: 'abc123def456'; no key 'input_ids_12345'",
    'credentials:\n  user: bob\n"password":\n}',
]

# Words of trainings, and what may stand beside them.
HARMLESS = (
    "token_accuracy max_tokens num_tokens pad_token eos_token bos_token image_token pass@1 pass@k pass_rate forward_pass "
    "key_padding_mask key_states tokens token_type_ids per_token_kl next_token tokenizer keys author passes login_step"
).split()
BESIDE = ["512", "0.3", "1e-06", "<pad>", "</s>", "<|im_end|>", "[MASK]", "None", "True", "nan"]
FORMS = [
    "{}={}",
    "{} = {}",
    "{}: {}",
    "{} {}",
    "{} is {}",
    "({} {})",
    "{}\t{}",
    "{!r}: {}",
    "--{} {}",
    "{}:\n  {}",
    "{}({})",
]
SECRET = ["password", "hub_token", "api_key", "DB_PASSWORD", "wandb_api_key", "client_secret", "my_passwd"]
PLAIN = ["{}={}", "{} = {}", "{}: {}", "{} is {}", "x {} was '{}'", "({} is {})", "{}\t{}", "{!r}: {!r}", "--{} {}"]
BROKEN = ["{}:\n  {}", "{!r}:\n {!r}", "{!r}:\n\n    {!r}", "{} = \\\n  '{}'", "{} = (\n    '{}'\n)", "set_{}({!r})"]


@pytest.mark.parametrize("secret", KNOWN.values(), ids=KNOWN)
@pytest.mark.parametrize("text", ["{}", "x = '{}'", "(401 for {})", "a,{},b", "https://h/{}/x", "b'{}'", 'path/{}"'])
def test_known_forms_are_hidden_wherever_they_stand(secret, text):
    assert_gone(redact_text(text.format(secret)), secret)


@pytest.mark.parametrize("text,left", IN_TEXT, ids=[text for text, _ in IN_TEXT])
def test_what_stands_around_a_secret_tells_it(text, left):
    assert redact_text(text.format(WORD)) == left


@pytest.mark.parametrize("text,left", IN_TEXT, ids=[text for text, _ in IN_TEXT])
def test_surroundings_do_not_matter(text, left):
    for before, after in [("lr=1\n", "\nx=2"), ("\n", "\n"), ("# a b\n", "\n-----\n")]:
        assert redact_text(before + text.format(WORD) + after) == before + left + after


@pytest.mark.parametrize("text", KEPT)
def test_what_is_no_secret_stays(text):
    assert redact_text(text) == text
    assert redact([text]) == [text]


@pytest.mark.parametrize("secret", KNOWN.values(), ids=KNOWN)
def test_json_is_searched_in_values_and_keys(secret):
    value = {"a": [{"b": f"x {secret} y"}, (secret,)], secret: 1, "n": 3, "none": None}
    hidden = redact(value)
    assert_gone(json.dumps(hidden), secret)
    assert hidden["n"] == 3 and hidden["none"] is None and len(hidden) == 4


@pytest.mark.parametrize(
    "value,hidden",
    [
        ({"hub_token": WORD}, {"hub_token": REDACTED}),
        ({"hubToken": WORD, "HF_TOKEN": WORD}, {"hubToken": REDACTED, "HF_TOKEN": REDACTED}),
        ({"push_to_hub_token": None, "use_auth_token": True}, {"push_to_hub_token": None, "use_auth_token": True}),
        ({"password": 12345, "pad_token": "<pad>"}, {"password": REDACTED, "pad_token": "<pad>"}),
        (
            {"bos_token": "zq", "custom_token": "<x>", "token": 7},
            {"bos_token": "zq", "custom_token": "<x>", "token": 7},
        ),
        ({"credentials": {"user": WORD, "n": [WORD, 1]}}, {"credentials": {"user": REDACTED, "n": [REDACTED] * 2}}),
        ({"cookies": [WORD]}, {"cookies": [REDACTED]}),
        ({"a": {"model": {"api_key": WORD}}}, {"a": {"model": {"api_key": REDACTED}}}),
        (["--token", WORD, "--lr", "3"], ["--token", REDACTED, "--lr", "3"]),
        (["--token", "--lr", "3"], ["--token", "--lr", "3"]),
        ([f"--db-password={WORD} two;words", "x"], [f"--db-password={REDACTED}", "x"]),
        ([["X-Api-Key", WORD], ["Accept", "y"]], [["X-Api-Key", REDACTED], ["Accept", "y"]]),
        ({"name": "HF_TOKEN", "value": WORD}, {"name": "HF_TOKEN", "value": REDACTED}),
        ({"name": "lr", "value": "3"}, {"name": "lr", "value": "3"}),
        ({"columns": ["token", "label"]}, {"columns": ["token", "label"]}),
        ({"token_hash": "ab12", "tokens": [1, 2]}, {"token_hash": "ab12", "tokens": [1, 2]}),
        ({"key": WORD, "secret": WORD, "region": "x"}, {"key": REDACTED, "secret": REDACTED, "region": "x"}),
        ({"username": "bob", "key": WORD}, {"username": "bob", "key": REDACTED}),
        ({"pass": WORD, "b": {"pass": 0.3}}, {"pass": REDACTED, "b": {"pass": 0.3}}),
        ({"pass": "61%"}, {"pass": "61%"}),
        (["--pass", WORD], ["--pass", REDACTED]),
        ({"judge_key": WORD, "groq_key": [WORD]}, {"judge_key": REDACTED, "groq_key": [REDACTED]}),
        ({"answer_key": 42, "sort_key": "sentence1"}, {"answer_key": 42, "sort_key": "sentence1"}),
        ({"my_key": {"password": "hunter2"}}, {"my_key": {"password": REDACTED}}),
        (["--judge_key", WORD, f"--x-key={WORD}"], ["--judge_key", REDACTED, f"--x-key={REDACTED}"]),
        ({"key": "prompt", "value": "3"}, {"key": "prompt", "value": "3"}),
        ([1, 2.5, True, None, ()], [1, 2.5, True, None, []]),
    ],
    ids=str,
)
def test_json_values(value, hidden):
    before = json.dumps(value)
    assert redact(value) == hidden
    assert json.dumps(value) == before


def test_keys_that_differ_only_in_their_secret_stay_two():
    hidden = redact({f"https://a:{WORD}@h": 1, f"https://b:{WORD}@h": 2})
    assert hidden == {"https://<redacted>@h": 1, "https://<redacted>@h'": 2}


def test_values_of_the_environment_are_known(monkeypatch):
    key = made_up(40, LOWER_HEX)  # an old W&B key looks like any hash
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("SHORT_PASSWORD", "lr=3")
    monkeypatch.setenv("PWD", "/home/me/project")
    assert redact_text(f"401: {key} in /home/me/project, lr=3") == "401: <redacted> in /home/me/project, lr=3"
    assert redact({"message": f"key {key}"}) == {"message": "key <redacted>"}
    monkeypatch.delenv("WANDB_API_KEY")
    assert redact_text(key) == key


@pytest.mark.parametrize("given", [["--judge_key", WORD], [f"--judge-key={WORD}"], [f"password={WORD}"]], ids=str)
def test_what_the_command_line_gives_is_hidden_everywhere(monkeypatch, given):
    assert redact_text(f"401 for {WORD}") == f"401 for {WORD}"
    monkeypatch.setattr("sys.argv", ["train.py", *given, "--image_key", "pixel_values_2", "--token", "--verbose-runs"])
    text = "401 for {} with pixel_values_2 --verbose-runs"
    assert redact_text(text.format(WORD)) == text.format(REDACTED)


def test_a_key_in_the_environment_is_hidden_everywhere(monkeypatch):
    monkeypatch.setenv("GROQ_KEY", WORD)
    monkeypatch.setenv("SORT_KEY", "answer_length")
    assert redact_text(f"answer_length {WORD}") == "answer_length <redacted>"


def test_traceback_and_diff():
    token = KNOWN["hugging face"]
    trace = (
        f'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    login("{token}")\nOSError: {token}: 401'
    )
    assert redact_text(trace) == trace.replace(token, REDACTED)
    diff = f"@@ -1,4 +1,4 @@\n {made_up(60)}\n {made_up(60, seed=1)}\n -----END RSA PRIVATE KEY-----\n-a\n+b\n"
    assert redact_text(diff) == f"@@ -1,4 +1,4 @@\n{REDACTED}\n-a\n+b\n"


def test_names_of_rules_and_metrics_are_no_secrets():
    names = {file.stem for file in PACKAGE.glob("rules/*/*.yaml")}
    names |= set(yaml.safe_load((PACKAGE / "metrics" / "names.yaml").read_text()))
    names |= {entry for file in PACKAGE.glob("metrics/maps/*.json") for entry in texts(json.loads(file.read_text()))}
    assert len(names) > 500
    assert {name for name in names if is_secret_name(name)} == set()


@pytest.mark.slow
def test_fields_of_configs_are_no_secrets():
    from peft import LoraConfig
    from transformers import GenerationConfig, Qwen2Config
    from trl import DPOConfig, GRPOConfig, SFTConfig

    names = {name for config in (DPOConfig, GRPOConfig, SFTConfig, LoraConfig) for name in config.__dataclass_fields__}
    names |= GenerationConfig().to_dict().keys() | Qwen2Config().to_dict().keys()
    assert {name for name in names if is_secret_name(name)} == {"hub_token"}


def texts(value):
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    for one in value if isinstance(value, list) else []:
        yield from texts(one)


@pytest.mark.parametrize(
    "name", "token hf-token apiKey APIKey aws_secret_access_key DB_PASS accessToken x.auth".split()
)
def test_secret_names(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", "tokens token_ids key keys monkey author pass forward_pass  per_token secret_path PWD".split()
)
def test_other_names(name):
    assert not is_secret_name(name)


PIECES = st.sampled_from(
    [*"=:'\" \n\\-{}[](),@/", "password", "token", "--token", "https://", "Cookie", REDACTED, WORD]
)
SCRAPS = st.lists(PIECES | st.text(max_size=5), max_size=12).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | SCRAPS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SCRAPS, inner, max_size=4),
    max_leaves=12,
)


@given(SCRAPS)
def test_a_text_is_not_hidden_further_by_a_second_time(text):
    once = redact_text(text)
    assert redact_text(once) == once


@given(JSON)
def test_any_json_keeps_its_shape(value):
    hidden = redact(value)
    json.dumps(hidden, allow_nan=False)
    assert shape(hidden) == shape(value)


@given(SCRAPS, st.sampled_from(sorted(KNOWN)), SCRAPS)
def test_no_surroundings_save_a_known_secret(before, name, after):
    assert_gone(redact_text(f"{before} {KNOWN[name]} {after}"), KNOWN[name])


@given(st.lists(st.tuples(st.sampled_from(FORMS), st.sampled_from(HARMLESS), st.sampled_from(BESIDE)), max_size=6))
def test_words_of_trainings_stay(parts):
    text = "\n".join(form.format(name, value) for form, name, value in parts)
    assert redact_text(text) == text


@given(st.sampled_from(PLAIN + BROKEN), st.sampled_from(SECRET), st.sampled_from([WORD, "hunter2", "tr0ub4dor@3"]))
def test_a_value_beside_a_secret_name_goes(form, name, value):
    assert redact_text(f"lr=1\n{form.format(name, value)}\nb=2") == f"lr=1\n{form.format(name, REDACTED)}\nb=2"


def shape(value):
    if isinstance(value, dict):
        return [shape(one) for one in value.values()]
    return [shape(one) for one in value] if isinstance(value, list) else 0


def assert_gone(text, secret):
    """Neither the whole secret nor a longer piece of it."""
    assert REDACTED in text
    pieces = {secret[i : i + 16] for i in range(4, len(secret) - 19)} | {secret}
    assert not {piece for piece in pieces if piece in text and "PRIVATE KEY" not in piece}


@pytest.mark.parametrize("piece", ["a", "=", "'\"", "-", "password=x ", "password:", "eyJ", "https://", "a:", "\\",
                                   "-----BEGIN PRIVATE KEY-----\n", "A" * 64 + "\n", "sk-", "login ", "Cookie: ",
                                   "?sig=", "password=(", "--token ", "login('a', ", "{username:", "password is ", "password: |\n a\n", "{'key': ", "Bearer ", "wandb login ", "- ", "x: ", "judge_key=", "key a-"])  # fmt: skip
def test_time_grows_with_the_length_of_a_text_and_not_faster(piece):
    short, long = piece * (20_000 // len(piece)), piece * (160_000 // len(piece))
    assert seconds(long) < 40 * seconds(short) + 0.2  # 8 times as long; 64 times would be the square


def seconds(text):
    start = time.process_time()
    redact_text(text)
    return time.process_time() - start
