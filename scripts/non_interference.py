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

"""Trainer names in; a table comes out that says whether training with the callback is bit for bit that without it.

Each training runs in a process of its own (or two, with `--processes 2`) from the same seed. Compared are the final
weights, the state of the optimizer, the log history without its times, and the random states of Python, NumPy and torch,
on every rank.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


KINDS = ("sft", "dpo", "kto", "reward", "grpo", "rloo", "orpo")
STEPS = 24
TIMES = ("runtime", "per_second", "step_time")  # endings of the keys that hold a time


def digest(value: Any) -> str:
    """Hash of nested tensors, arrays and plain values."""
    import numpy as np
    import torch

    found = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            found.update(f"{part.dtype}{tuple(part.shape)}".encode())
            found.update(part.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(part, np.ndarray):
            found.update(part.tobytes())
        elif isinstance(part, dict):
            for key in sorted(part, key=str):
                found.update(str(key).encode())
                add(part[key])
        elif isinstance(part, list | tuple):
            for item in part:
                add(item)
        else:
            found.update(repr(part).encode())

    add(value)
    return found.hexdigest()


def train(kind: str, watched: bool, folder: str) -> dict[str, str]:
    """Train on this process; what can differ afterwards, as hashes."""
    import numpy as np
    import tiny
    import torch

    from trl_diagnostics import DiagnosticsCallback

    options: dict[str, Any] = {"max_steps": STEPS, "logging_steps": 3, "save_strategy": "steps", "save_steps": 10}
    options |= {"gradient_accumulation_steps": 2, "seed": 3}
    if "RANK" in os.environ:
        options["ddp_backend"] = "gloo"
    callbacks = [DiagnosticsCallback(stop_on_critical=True)] if watched else []
    trainer = tiny.make_trainer(kind, folder, callbacks, **options)
    trainer.train()
    assert not watched or callbacks[0].broken == {}, callbacks[0].broken
    logs = [{key: value for key, value in log.items() if not key.endswith(TIMES)} for log in trainer.state.log_history]
    return {
        "weights": digest(trainer.model.state_dict()),
        "optimizer": digest(trainer.optimizer.state_dict()["state"]),
        "logs": digest(logs),
        "python": digest(random.getstate()),
        "numpy": digest(np.random.get_state()),
        "torch": digest(torch.random.get_rng_state()),
    }


def run(kind: str, watched: bool, processes: int) -> list[dict[str, str]]:
    """The hashes of each rank of a training in new processes."""
    with tempfile.TemporaryDirectory() as folder:
        launcher = [sys.executable]
        if processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [*launcher, __file__, "--one", kind, "--folder", folder, *(["--watched"] if watched else [])]
        paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path]
        env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        if done.returncode:
            raise RuntimeError(f"{kind}: {done.stderr[-4000:]}")
        return [json.loads((Path(folder) / f"rank{rank}.json").read_text()) for rank in range(processes)]


def compare(kind: str, processes: int) -> dict[str, bool]:
    """What is the same on all ranks with the callback and without."""
    without, watched = (run(kind, flag, processes) for flag in (False, True))
    return {part: all(a[part] == b[part] for a, b in zip(without, watched, strict=True)) for part in without[0]}


def _one(kind: str, watched: bool, folder: str) -> None:
    found = train(kind, watched, folder)
    (Path(folder) / f"rank{os.environ.get('RANK', 0)}.json").write_text(json.dumps(found))
    if "RANK" in os.environ:
        import torch

        torch.distributed.barrier()
        os._exit(0)  # at a normal exit the threads of gloo sometimes abort the interpreter after all is done


def main() -> int:
    """Print the table; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", default=KINDS, metavar="TRAINER", help=f"default: {' '.join(KINDS)}")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--watched", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _one(options.one, options.watched, options.folder)
        return 0
    differs = False
    for kind in options.kinds:
        same = compare(kind, options.processes)
        print(f"{kind:8} {options.processes} process  " + "  ".join(f"{part} {flag}" for part, flag in same.items()))
        differs |= not all(same.values())
    return int(differs)


if __name__ == "__main__":
    sys.exit(main())
