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

"""The rewards of groups of completions go in; how many groups teach something, and why the others do not, comes out."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


SAME = 1e-6  # rewards of a group that are closer than this give no gradient (torch.isclose in trl/trainer/grpo_trainer.py)
CUT_OFF = 0.95  # share of max_completion_length; the text has a few tokens less than were generated
LOW = "groups_all_low"
MOST_READ = 16  # completions that are counted in tokens, per generation


class SignalBudget:
    """
    Sorts the groups of each generation of GRPO and RLOO by what they teach.

    The trainer keeps the rewards of its last generation, of all processes (`_logs`). A group whose weighted rewards are
    all the same has no advantage and gives no gradient. Which of these are all wrong and which all right is an estimate:
    they are at the lowest or at the highest reward that was seen so far. So is whether they were cut off: the tokens of
    one completion of a group are counted.

    Args:
        trainer (`Trainer`):
            Trainer of TRL with reward functions and `num_generations`.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer
        self._seen = 0  # generations since the last log
        self._low, self._high = math.inf, -math.inf
        self._found: Counter[str] = Counter()

    def look(self) -> None:
        """After a step: sort the groups of its generation, if there was one."""
        generations = len(self.trainer._metrics["train"].get("frac_reward_zero_std", ()))
        if generations != self._seen:
            self._seen = generations
            self._sort()

    def take(self) -> dict[str, float]:
        """
        What was found since the last call, at a log.

        Returns:
            `dict[str, float]`: `groups` and how many of them are `groups_useful`, `groups_all_low` (of these
            `groups_cut_off`), `groups_all_high`, `groups_equal` in between, `groups_cancelling` (the rewards of the
            functions differ and their weighted sum does not) and `groups_unscored`; empty without a generation.
        """
        found, self._found, self._seen = self._found, Counter(), 0
        return {name: float(found[name]) for name in KINDS} if found else {}

    def _sort(self) -> None:
        columns = list(self.trainer._logs["rewards"].values())
        weights = self.trainer.reward_weights.tolist()
        rewards = list(zip(*columns, strict=True))
        totals = [_total(row, weights) for row in rewards]
        scored = [total for total in totals if total is not None]
        self._low, self._high = min([self._low, *scored]), max([self._high, *scored])
        size, low = self.trainer.num_generations, []
        for start in range(0, len(totals) - size + 1, size):
            kind = self._kind(totals[start : start + size], rewards[start : start + size])
            self._found.update(("groups", kind))
            if kind == LOW:
                low.append(start)
        if low:
            read = low[:: math.ceil(len(low) / MOST_READ)]
            cut_off = sum(self._is_cut_off(self.trainer._logs["completion"][start]) for start in read)
            self._found["groups_cut_off"] += round(cut_off / len(read) * len(low))

    def _kind(self, totals: Sequence[float | None], rewards: Sequence[tuple[float, ...]]) -> str:
        scored = [total for total in totals if total is not None]
        if not scored:
            return "groups_unscored"
        if max(scored) - min(scored) > SAME:
            return "groups_useful"
        if any(_differ(column) for column in zip(*rewards, strict=True)):
            return "groups_cancelling"
        if self._high - self._low <= SAME:  # nothing is known of better and worse yet
            return "groups_equal"
        if scored[0] <= self._low + SAME:
            return LOW
        return "groups_all_high" if scored[0] >= self._high - SAME else "groups_equal"

    def _is_cut_off(self, completion: Any) -> bool:
        text = (
            completion if isinstance(completion, str) else "".join(str(turn.get("content", "")) for turn in completion)
        )
        limit = self.trainer.max_completion_length
        tokens = self.trainer.processing_class(text=text, add_special_tokens=False)["input_ids"]
        tokens = tokens[0] if tokens and isinstance(tokens[0], list) else tokens  # a processor gives a batch
        return limit is not None and len(tokens) >= CUT_OFF * limit


KINDS = (
    "groups",
    "groups_useful",
    "groups_all_low",
    "groups_cut_off",
    "groups_all_high",
    "groups_equal",
    "groups_cancelling",
    "groups_unscored",
)


def add_up(totals: Counter[str], metrics: Mapping[str, float | None]) -> None:
    """Add the groups of a record to those before."""
    if metrics.get("groups"):
        totals.update({name: int(metrics.get(name) or 0) for name in KINDS})


def sentence(totals: Mapping[str, int]) -> str | None:
    """
    The signal budget in words.

    Args:
        totals (`Mapping[str, int]`):
            As made by [`add_up`].

    Returns:
        `str` or `None`: such as "Of 64 groups of completions 41 gave no reward gradient: 30 all wrong (about 23 of them cut off),
        9 all right, 2 with rewards that cancel each other. Useful share 36 %."; `None` without groups.
    """
    if not totals.get("groups"):
        return None
    idle = totals["groups"] - totals["groups_useful"]
    if not idle:
        return f"All {totals['groups']:,} groups of completions gave a reward gradient."
    cut_off = f" (about {totals['groups_cut_off']:,} of them cut off)" if totals["groups_cut_off"] else ""
    parts = [f"{totals[name]:,} {said}{cut_off * (name == LOW)}" for name, said in SAID.items() if totals[name]]
    share = totals["groups_useful"] / totals["groups"]
    estimated = "Wrong and right are told by the lowest and the highest reward of the run. "
    return (
        f"Of {totals['groups']:,} groups of completions {idle:,} gave no reward gradient: {', '.join(parts)}. "
        f"{estimated if totals[LOW] or totals['groups_all_high'] else ''}Useful share {share:.0%}."
    )


SAID = {
    "groups_all_low": "all wrong",
    "groups_all_high": "all right",
    "groups_equal": "all the same, neither wrong nor right",
    "groups_cancelling": "with rewards that cancel each other",
    "groups_unscored": "without a reward",
}


def _total(row: Iterable[float], weights: Iterable[float]) -> float | None:
    known = [weight * reward for reward, weight in zip(row, weights, strict=True) if not math.isnan(reward)]
    return sum(known) if known else None


def _differ(column: Sequence[float]) -> bool:
    known = [reward for reward in column if not math.isnan(reward)]
    return bool(known) and max(known) - min(known) > SAME
