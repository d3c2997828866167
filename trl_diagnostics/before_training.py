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

"""A trainer that has not been trained goes in, what its training would break on comes out: `preflight`."""

import time

from transformers import Trainer

from .engine.engine import Engine
from .engine.finding import Finding, Record, Severity
from .engine.rulebook import collect_rules
from .guard import Guard
from .metadata import trl_version
from .metrics.checks import check_metric, check_rule
from .metrics.names import MetricMap, trainer_of
from .sinks import console
from .sinks.redact import redact, redact_text
from .sources.preflight import look_before


def preflight(trainer: Trainer) -> list[Finding]:
    """
    Look at model, data and reward functions of a trainer before `trainer.train()`, and say what is wrong.

    [`DiagnosticsCallback`] does the same when training begins, where the optimizer and the number of steps are known
    too. Nothing is trained or written, and no random state changes. It takes 10 seconds at most.

    Args:
        trainer ([`~transformers.Trainer`]):
            Any trainer of TRL, ready for `train()`.

    Returns:
        `list[Finding]`: the worst first; empty where nothing is wrong, and on all processes but the main one.

    Example:

    ```python
    from trl import SFTTrainer
    from trl_diagnostics import preflight

    trainer = SFTTrainer(...)
    if not preflight(trainer):
        trainer.train()
    ```
    """
    if not trainer.is_world_process_zero():
        return []
    console.set_up_logger()
    metric_map = MetricMap(
        trainer_of([cls.__name__ for cls in type(trainer.args).__mro__]) or "unknown", trl_version()
    )
    config = {**trainer.args.to_dict(), "world_size": trainer.args.world_size}
    rules = collect_rules((), None, (), check_metric, check_rule, redact_text)
    engine = Engine(rules, metric_map.trainer, config, metric_map)
    seen = look_before(trainer, Guard())
    console.logger.info(console.looked_before(seen.seconds))
    for check, why in redact(seen.unseen).items():
        console.logger.info(console.not_seen(check, why))
    findings = console.rank(engine.update(Record(0, time.time(), "preflight", seen.metrics)))
    for finding in findings:
        if finding.level > Severity.INFO:
            console.show(finding, last=False)
    return findings
