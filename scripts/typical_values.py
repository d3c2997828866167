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

"""
Healthy recorded runs go in, trl_diagnostics/metrics/typical.json comes out: ranges of the most important metrics.

The runs are those of the failure lab that really trained a small model (no replayed log), with an even seed (odd seeds
are kept for judging the rules) and the default loss_type (the scale of another is not comparable).
"""

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from failure_lab.corpus import FOLDER, SUFFIX, read_run


ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "trl_diagnostics" / "metrics" / "typical.json"
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


def collect(files: Iterable[Path]) -> dict[str, dict[str, list[float]]]:
    """Finite values of each metric and trainer in all logs of training of those runs that count."""
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


def text(found: dict[str, dict[str, list[float]]]) -> str:
    """The file: a line per metric, two digits for each number."""
    rows = {name: {trainer: _range(found[name][trainer]) for trainer in sorted(found[name])} for name in METRICS}
    lines = [f" {json.dumps(name)}: {json.dumps(ranges)}" for name, ranges in rows.items() if ranges]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _range(values: list[float]) -> list[float]:
    return [float(f"{value:.2g}") for value in np.percentile(values, PERCENTILES)]


def main(argv: list[str] | None = None) -> int:
    """Write the file, or print it; 1 if there are no runs, and nothing is written then."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="recorded runs of the failure lab")
    parser.add_argument("--write", action="store_true", help=f"replace {OUTPUT.relative_to(ROOT)}")
    arguments = parser.parse_args(argv)
    found = collect(sorted(arguments.folder.rglob(f"healthy__*{SUFFIX}")))
    if not found:
        print(f"no healthy recorded runs in {arguments.folder}: record them with `make lab`", file=sys.stderr)
        return 1
    if arguments.write:
        OUTPUT.write_text(text(found), encoding="utf-8")
    else:
        print(text(found), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
