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

"""The tiny models, data sets and trainers that the other tests stand on: the same each time, and they really train."""

import json
import math

import pytest
import tiny
import tiny_data
import tiny_models
import torch


class Logs(tiny.TrainerCallback):
    def __init__(self):
        self.logs = []

    def on_log(self, args, state, control, logs, **kwargs):
        self.logs.append((state.global_step, dict(logs)))


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def logs_of(kind, folder, **overrides):
    seen = Logs()
    tiny.make_trainer(kind, folder, [seen], max_steps=3, **overrides).train()
    return seen.logs


def test_the_tokenizer_gives_every_text_back():
    tokenizer = tiny_data.tiny_tokenizer()
    for row in tiny_data.text_dataset(50):
        ids = tokenizer(row["text"])["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == row["text"]


def test_the_chat_template_marks_what_the_assistant_says():
    tokenizer = tiny_data.tiny_tokenizer()
    turns = [{"role": "user", "content": "count from one"}, {"role": "assistant", "content": "two three ."}]
    out = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    said = [token for token, mask in zip(out["input_ids"], out["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(said) == "two three . <eos>"
    assert tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True) == (
        "<|user|> count from one <|assistant|> "
    )


def test_the_seed_alone_decides_the_data():
    for build in (tiny_data.text_dataset, tiny_data.preference_dataset, tiny_data.unpaired_dataset):
        assert build(20, seed=3).to_list() == build(20, seed=3).to_list()
        assert build(20, seed=3).to_list() != build(20, seed=4).to_list()


def test_noise_and_class_shares_are_as_asked():
    clean, noisy = (tiny_data.preference_dataset(400, seed=1, noise=noise) for noise in (0.0, 0.25))
    rights = [tiny_data.NUMBERS[tiny_data.NUMBERS.index(row["prompt"].split()[-1]) + 1] for row in clean]
    assert all(row["chosen"].split()[0] == right for row, right in zip(clean, rights, strict=True))
    assert all(row["chosen"] != row["rejected"] for row in noisy)
    assert set(tiny_data.unpaired_dataset(50, desirable=1.0)["label"]) == {True}
    assert set(tiny_data.unpaired_dataset(50, desirable=0.0)["label"]) == {False}


@pytest.mark.parametrize(
    ("completion", "reward"),
    [("the red cat sees a blue dog .", 2 / 6), ("the red red cat .", 1 / 6), ("the red cat", 0.0), ("", 0.0)],
)
def test_the_reward_counts_the_colours_of_a_finished_story(completion, reward):
    assert tiny_data.colour_variety([completion]) == [reward]


def test_models_are_the_same_for_the_same_seed_and_leave_the_random_state_alone():
    before = torch.random.get_rng_state()
    first, again, other = tiny.tiny_model(), tiny.tiny_model(), tiny.tiny_model(seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))
    assert weights(first).numel() < 25_000


def test_a_saved_model_is_built_once():
    folder = tiny_models.model_folder()
    assert folder == tiny_models.model_folder()
    assert torch.equal(weights(tiny.saved_model()), weights(tiny_models.Qwen2ForCausalLM.from_pretrained(folder)))


def test_overrides_go_to_the_trainer_or_to_its_config(tmp_path):
    model = tiny.tiny_model(seed=7)
    trainer = tiny.make_trainer("dpo", tmp_path, model=model, beta=0.25, loss_type=["ipo"], learning_rate=1e-6)
    assert trainer.model is model
    assert (trainer.args.beta, trainer.args.loss_type, trainer.args.learning_rate) == (0.25, ["ipo"], 1e-6)


def test_an_unknown_override_is_an_error_of_the_config(tmp_path):
    with pytest.raises(TypeError, match="learning_rat"):
        tiny.make_trainer("sft", tmp_path, learning_rat=1e-3)


@pytest.mark.slow
def test_sft_trains_and_logs_every_step(tmp_path):
    logs = logs_of("sft", tmp_path)
    assert [step for step, _ in logs] == [1, 2, 3, 3]
    assert all(0 < log["loss"] < 5 and log["grad_norm"] > 0 for _, log in logs[:3])
    assert "train_runtime" in logs[-1][1]
    assert logs[:3] == logs_of("sft", tmp_path)[:3]


@pytest.mark.slow
def test_grpo_trains_and_its_groups_differ_from_the_first_step(tmp_path):
    logs = logs_of("grpo", tmp_path, learning_rate=1e-4)
    assert [step for step, _ in logs] == [1, 2, 3, 3]
    for _, log in logs[:3]:
        assert log["frac_reward_zero_std"] == 0.0 < log["rewards/colour_variety/std"]
        assert log["completions/clipped_ratio"] < 0.5
        assert log["grad_norm"] > 0


@pytest.mark.slow
def test_poisoned_weights_show_in_the_next_log_and_the_loss_hides_them(tmp_path):
    seen = Logs()
    tiny.make_trainer("sft", tmp_path, [seen, tiny.PoisonWeights(step=2)], max_steps=3).train()
    (_, healthy), (_, broken) = seen.logs[1:3]
    assert math.isfinite(healthy["grad_norm"])
    assert math.isnan(broken["grad_norm"]) and broken["loss"] == 0.0


@pytest.mark.slow
def test_the_log_file_is_strict_json_with_the_keys_of_trl(tmp_path):
    file = tmp_path / "log.jsonl"
    callbacks = [tiny.LogWriter(file), tiny.PoisonWeights(step=1)]
    tiny.make_trainer("sft", tmp_path, callbacks, max_steps=2).train()
    head, *logs = [json.loads(line, parse_constant=pytest.fail) for line in file.read_text().splitlines()]
    assert (head["trainer"], head["config"]["max_steps"]) == ("sft", 2)
    assert [log["step"] for log in logs] == [1, 2, 2]
    assert logs[1]["grad_norm"] == "NaN" and "mean_token_accuracy" in logs[1]
