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

"""Healthy recorded runs go in, the section `typical` of names.yaml comes out: ranges of the most important metrics."""

import argparse
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from failure_lab.corpus import FOLDER, SUFFIX, read_run


ROOT = Path(__file__).resolve().parent.parent
NAMES = ROOT / "trl_diagnostics" / "metrics" / "names.yaml"
METRICS = """
    loss grad_norm token_accuracy entropy nll_loss
    win_rate reward_margin rewards_chosen rewards_rejected logps_chosen logps_rejected
    logps_chosen_per_token logps_rejected_per_token log_odds_ratio log_odds_chosen kl_reference_point
    accuracy margin mean_reward min_reward max_reward
    reward reward_std frac_reward_zero_std rewards/{name}/mean rewards/{name}/std kl clip_fraction
    completion_length completions_clipped_ratio completions_mean_terminated_length eos_fraction
    importance_sampling_ratio sampling_logp_difference tool_call_frequency tool_failure_frequency
    kl_sequence rlhf_reward score_margin policy_loss value_loss policy_ratio approx_kl
""".split()
PERCENTILES = (5, 95)
WIDTH = 119
HEADER = (
    "# 5th and 95th percentile of all logs of the healthy runs of the failure lab (small models), per trainer.\n"
    "# Written by `python scripts/typical_values.py --write`; must stay the last section.\n"
    "typical:\n"
)


def collect(files: Iterable[Path]) -> dict[str, dict[str, list[float]]]:
    """
    Finite values of each metric and trainer in trained runs (not in replayed logs) with the default loss_type, whose
    scale is not that of others, and an even seed: odd seeds are kept for judging the rules.
    """
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        label, records = read_run(file)
        if label["fault"] or label["replayed"] or label["seed"] % 2 or "loss_type" in label["config"]:
            continue
        for record in records:
            for name, value in record.metrics.items() if record.phase == "train" else ():
                if value is not None and np.isfinite(value):
                    found[_name(name)][label["trainer"]].append(value)
    return found


def _name(name: str) -> str:
    return re.sub(r"^rewards/[^/]+/(mean|std)$", r"rewards/{name}/\1", name)


def section(found: dict[str, dict[str, list[float]]]) -> str:
    """The section of names.yaml, two digits each."""
    lines = []
    for name in METRICS:
        if name in found:
            values = sorted(found[name].items())
            # "_" for a blank at which no line may end
            ranges = ", ".join(f"{trainer}:_[{_range(points)}]" for trainer, points in values)
            start = f'  "{name}": {{' if "{" in name else f"  {name}: {{"
            text = textwrap.wrap(f"{ranges}}}", WIDTH - len(start), break_long_words=False, break_on_hyphens=False)
            lines += [f"{start if i == 0 else ' ' * 4}{line.replace('_', ' ')}" for i, line in enumerate(text)]
    return HEADER + "\n".join(lines) + "\n"


def _range(values: list[float]) -> str:
    low, high = (float(f"{value:.2g}") for value in np.percentile(values, PERCENTILES))
    return f"{_plain(low)},_{_plain(high)}"


def _plain(value: float) -> str:
    """YAML reads 3e-05 as text, 3.0e-05 as a number."""
    text = f"{value:g}"
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="recorded runs of the failure lab")
    parser.add_argument("--write", action="store_true", help="replace the section in names.yaml")
    arguments = parser.parse_args()
    text = section(collect(sorted(arguments.folder.rglob(f"healthy__*{SUFFIX}"))))
    print(text, end="")
    if arguments.write:
        before = NAMES.read_text(encoding="utf-8").split(HEADER)[0]
        NAMES.write_text(before + text, encoding="utf-8")


if __name__ == "__main__":
    main()
