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

"""What a person reads in the terminal, letter by letter."""

import subprocess
import sys

import pytest

from trl_diagnostics import Finding
from trl_diagnostics.engine.engine import ACTIVE, BLIND, NOT_APPLICABLE, WARMING_UP
from trl_diagnostics.sinks import console


def finding(
    rule="importance_sampling_ratio_low", severity="high", state="started", step=120, first_step=112, **fields
):
    message = "Importance sampling ratio at 0.10 for 10 logs in a row (1.0 is healthy)."
    fields = {"message": message, "metric": "importance_sampling_ratio", "value": 0.1} | fields
    return Finding(rule, severity, state, step, first_step, **fields)


FIX = """Compare the weights in vLLM with the trainer's after a sync, match the dtype of the two engines, lower the number of
updates per generation.
"""


def test_warning():
    said = console.warning(finding(fix=FIX, reference=["https://github.com/huggingface/trl/issues/4772"]))
    assert said == (
        "[HIGH] importance_sampling_ratio_low  step 120 (since 112)\n"
        "       Importance sampling ratio at 0.10 for 10 logs in a row (1.0 is healthy).\n"
        "       Fix: Compare the weights in vLLM with the trainer's after a sync, match the dtype of the two engines, lower the\n"
        "       number of updates per generation.\n"
        "       Ref: https://github.com/huggingface/trl/issues/4772"
    )
    assert max(map(len, said.splitlines())) <= 119


def test_warning_of_a_sudden_problem_has_no_since():
    assert console.warning(finding(first_step=120)) == (
        "[HIGH] importance_sampling_ratio_low  step 120\n"
        "       Importance sampling ratio at 0.10 for 10 logs in a row (1.0 is healthy)."
    )


def test_warning_marks_what_is_not_stable():
    head = console.warning(finding(status="experimental")).splitlines()[0]
    assert head == "[HIGH] importance_sampling_ratio_low  step 120 (since 112)  experimental"


def test_warning_of_a_consequence_leaves_the_advice_to_its_cause():
    said = console.warning(finding(fix=FIX, reference=["https://x.org"], cascade_of="nonfinite_loss"))
    assert said == (
        "[HIGH] importance_sampling_ratio_low  step 120 (since 112)\n"
        "       Importance sampling ratio at 0.10 for 10 logs in a row (1.0 is healthy).\n"
        "       Follows nonfinite_loss."
    )


def test_a_long_reference_is_not_broken():
    long = "https://example.org/" + "a" * 200
    assert console.warning(finding(reference=[long])).splitlines()[-1] == f"       Ref: {long}"


@pytest.mark.parametrize("width", [60, 200])
def test_lines_are_no_wider_than_the_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    said = [console.warning(finding(fix=FIX)), console.too_few_logs(["rule"] * 6, 100, 10)]
    said += [
        console.banner("grpo", "1.16.0", {str(i): ACTIVE for i in range(99)}, "some-folder/with/a-name/diagnostics")
    ]
    said += [console.stopped(finding(), 120, "out/checkpoint-100")]
    said += [console.summary([finding(fix=FIX)], {"a": ACTIVE}, 200, {})]
    widest = max(len(line) for text in said for line in text.splitlines())
    assert min(width, 119) - 20 < widest <= width
    assert "some-folder/with/a-name/diagnostics" in said[2]  # no path is broken


def test_resolved():
    over = finding(state="resolved", message="Over at step 120.")
    assert console.resolved(over) == "[RESOLVED] importance_sampling_ratio_low  Over at step 120."


def test_stopped():
    assert console.stopped(finding(), 120, "out/checkpoint-100") == (
        "[STOP] Training stops because of importance_sampling_ratio_low, found at step 120. "
        "Resume from out/checkpoint-100."
    )
    assert console.stopped(finding(), 120, None) == (
        "[STOP] Training stops because of importance_sampling_ratio_low, found at step 120. "
        "No checkpoint on disk is known to be from before it."
    )


def test_banner():
    coverage = {"a": ACTIVE, "b": WARMING_UP, "c": NOT_APPLICABLE}
    assert console.banner("grpo", "1.16.0", coverage, "out/diagnostics") == (
        "TRL diagnostics: grpo (TRL 1.16.0), 2 rules apply, files in out/diagnostics"
    )
    assert console.banner("unknown", None, {}, "d") == ("TRL diagnostics: unknown, 0 rules apply, files in d")


def test_too_few_logs():
    assert console.too_few_logs(["a", "b", "c", "d", "e", "f"], 100, 10) == (
        "TRL diagnostics: 6 rules need more than the 10 logs of this run (max_steps 100, logging_steps 10) and will stay silent:"
        "\n  a, b, c, d and 2 more. A lower logging_steps lets them speak."
    )
    assert console.too_few_logs(["a"], 100, 10).startswith("TRL diagnostics: 1 rule needs more than the 10 logs")
    assert "A lower" not in console.too_few_logs(["a"], 10, 1)  # there is none


def test_summary():
    found = [
        finding("late", "medium", step=50, first_step=50, message="Late.", fix="Do this."),
        finding("nonfinite_loss", "critical", step=60, first_step=58, message="Loss is nan.", fix="Lower\nthe rate."),
        finding(
            "follows", "high", step=61, first_step=61, message="KL is high.", fix="x", cascade_of="nonfinite_loss"
        ),
        finding("late", "medium", "resolved", step=70, first_step=50, message="Late."),
    ]
    coverage = {"a": ACTIVE, "b": BLIND, "c": BLIND, "d": WARMING_UP, "e": NOT_APPLICABLE}
    assert console.summary(found, coverage, 200, {"on_finding": "KeyError: 'x'"}) == (
        "TRL diagnostics: 1 critical, 1 high, 1 medium findings in 200 logs\n"
        "  1. [CRITICAL] nonfinite_loss  step 58 to the end\n"
        "       Loss is nan.\n"
        "       Fix: Lower the rate.\n"
        "  2. [MEDIUM] late  step 50 to 70\n"
        "       Late.\n"
        "       Fix: Do this.\n"
        "  3. [HIGH] follows  step 61 to the end\n"
        "       KL is high.\n"
        "       Follows nonfinite_loss.\n"
        "  Rules: 1 active, 1 too few logs, 1 not applicable, 2 blind (by name in coverage.json)\n"
        "  Blind, a metric never came: b, c\n"
        "  Too few logs: d\n"
        "  Error of the diagnostics themselves: on_finding (KeyError: 'x')"
    )


def test_summary_of_a_healthy_run():
    assert console.summary([], {"a": ACTIVE}, 1, {}) == (
        "TRL diagnostics: no findings in 1 log\n"
        "  Rules: 1 active, 0 too few logs, 0 not applicable, 0 blind (by name in coverage.json)"
    )


def test_what_is_normal_is_no_finding_and_has_one_sentence():
    late = finding("late", "low", step=50, first_step=50, message="Late.", fix="Do this.")
    odd = finding("odd", "info", step=9, first_step=7, message="Odd is normal.", fix="Nothing.")
    odder = finding("odder", "info", step=3, first_step=3, message="Odder is normal.")
    assert console.summary([odder, odd, late], {}, 60, {}).splitlines()[:-1] == [
        "TRL diagnostics: 1 low finding in 60 logs",
        "  1. [LOW] late  step 50 to the end",
        "       Late.",
        "       Fix: Do this.",
        "  Normal here, though it may look odd:",
        "    odder (step 3): Odder is normal.",
        "    odd (step 7): Odd is normal.",
    ]
    assert console.summary([odd], {}, 60, {}).startswith("TRL diagnostics: no findings in 60 logs\n  Normal here")


def test_a_low_finding_is_short_while_training_goes_on():
    said = console.warning(finding("late", "low", fix=FIX, reference=["https://x.org"], message="Late."))
    assert said == "[LOW] late  step 120 (since 112)\n       Late."


def test_many_blind_rules_are_counted():
    coverage = {f"rule_{i}": BLIND for i in range(10)}
    assert console.summary([], coverage, 9, {}).splitlines()[-1] == (
        "  Blind, a metric never came: rule_0, rule_1, rule_2, rule_3, rule_4, rule_5, rule_6, rule_7 and 2 more"
    )


def test_one_finding_is_not_findings():
    assert console.summary([finding()], {}, 9, {}).startswith("TRL diagnostics: 1 high finding in 9 logs\n")


def test_episodes_of_one_rule_are_one_entry():
    first = [finding("a", "low", state, step, 5, message="A.") for state, step in (("started", 5), ("resolved", 8))]
    second = finding("a", "low", "started", 20, 20, message="A.")
    said = console.summary([*first, second], {}, 30, {}).splitlines()
    assert said[:3] == [
        "TRL diagnostics: 1 low finding in 30 logs",
        "  1. [LOW] a  step 5 to 8, 20 to the end",
        "       A.",
    ]
    said = console.summary([*first, second], {}, 30, {}, {"a|importance_sampling_ratio": 40})
    assert "step 5 to 8, 20 to the end, and 38 more times" in said


def test_the_first_thing_to_break_comes_first_unless_it_is_over():
    early = finding("early", "high", "started", 5, 3)
    loud = finding("loud", "critical", "started", 60, 60)
    over = finding("early", "high", "resolved", 20, 3)
    minor = finding("minor", "medium", "started", 1, 1)
    follows = finding("follows", "high", "started", 2, 2, cascade_of="loud")
    assert [f.rule for f in console.rank([minor, follows, loud, early])] == ["early", "loud", "minor", "follows"]
    assert [f.rule for f in console.rank([early, over, loud])] == ["loud", "early"]


def test_resumed():
    assert console.resumed(40, {}) == "TRL diagnostics: resumed at step 40"
    assert console.resumed(40, {("lr_zero", "learning_rate"): 7}) == (
        "TRL diagnostics: resumed at step 40, still going on: lr_zero (since 7)"
    )


def test_not_again():
    assert console.not_again(finding("a"), 3) == (
        "       a has come 3 times; from now on it is only written to findings.jsonl."
    )


def script(code):
    """Output and errors of a plain script, where no test runner has set up logging."""
    start = "import logging, sys\nfrom trl_diagnostics.sinks import console\n"
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_messages_are_visible_without_any_logging_set_up():
    code = "console.set_up_logger()\nconsole.set_up_logger()\nconsole.logger.info('hello')"
    assert script(code) == ("", "hello\n")


def test_a_users_own_logging_is_used():
    code = "logging.basicConfig(stream=sys.stdout, format='mine %(message)s')\n"
    assert script(code + "console.set_up_logger()\nconsole.logger.info('hello')") == ("mine hello\n", "")


def test_a_level_chosen_by_the_user_is_kept():
    code = "logging.getLogger('trl_diagnostics').setLevel('ERROR')\nconsole.set_up_logger()\n"
    assert script(code + "console.logger.warning('hello')") == ("", "")


def test_a_message_does_not_tear_the_progress_bar():
    code = (
        "from tqdm import tqdm\n"
        "console.set_up_logger()\n"
        "with tqdm(total=9, file=sys.stderr, ascii=True, ncols=60, mininterval=0) as bar:\n"
        "    bar.update(3)\n"
        "    console.logger.warning('[HIGH] a\\n       b')\n"
        "    bar.update(6)\n"
    )
    # each piece between carriage returns is either a bar or the message, never both
    pieces = [piece for piece in script(code)[1].replace("\n", "\r").split("\r") if piece.strip()]
    assert "[HIGH] a" in pieces and "       b" in pieces
    assert all("it/s" in piece or "?it" in piece for piece in pieces if "%" in piece)


def test_a_process_that_died_with_the_lock_of_the_bars_holds_up_no_message():
    code = (
        "import os, signal\n"
        "from tqdm import tqdm\n"
        "tqdm(disable=False, file=open(os.devnull, 'w')).close()\n"  # the lock is made with the first bar
        "if not (pid := os.fork()):\n"
        "    tqdm.get_lock().acquire()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.waitpid(pid, 0)\n"
        "signal.alarm(20)\n"
        "console.set_up_logger()\n"
        "console.logger.warning('hello')\n"
    )
    assert script(code)[1] == "hello\n"


def test_a_terminal_that_is_gone_raises_nothing():
    code = (
        "import os\n"
        "reader, writer = os.pipe()\n"
        "os.close(reader)\n"
        "console.set_up_logger()\n"
        "sys.stderr = os.fdopen(writer, 'w', 1)\n"
        "console.logger.warning('hello')\n"
        "sys.stderr = None\n"
        "console.logger.warning('hello')\n"
    )
    assert script(code)[0] == ""
