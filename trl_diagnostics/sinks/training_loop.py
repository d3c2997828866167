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

"""The start of a training goes in; whether its loop still runs, and where it is, comes out at any later moment."""

import sys
import threading
import traceback
from types import FrameType
from typing import Any


CALLBACKS = "transformers.trainer_callback"  # the module that calls callbacks


class TrainingLoop:
    """
    The function that trains, as the one that calls `on_train_begin`: where it is on the stack of its thread.

    Args:
        state (`TrainerState`):
            What tells this training from others.
    """

    def __init__(self, state: Any):
        self.state, self.thread, self.depth = state, threading.get_ident(), 0
        frame = sys._getframe()
        for inside in (False, True):  # first up to the handler of the callbacks, then out of it
            while frame is not None and (frame.f_globals.get("__name__") == CALLBACKS) is inside:
                frame = frame.f_back
        self.code = frame and frame.f_code  # `None` for a program that calls the callback in a way of its own
        while frame is not None and (frame := frame.f_back) is not None:
            self.depth += 1

    def is_running(self) -> bool:
        """Whether it is still on the stack; of a training that cannot be found there nobody knows that it is not."""
        frames, frame = [], self._frame()
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back
        return self.code is None or (len(frames) > self.depth and frames[~self.depth].f_code is self.code)

    def goes_on_beside(self, other: "TrainingLoop") -> bool:
        """
        Whether a training that begins leaves this one alone: it is the same one, or began in a callback of this one or in
        another thread. One in the same place has come after it.
        """
        if self.state is other.state:
            return True
        same_place = (self.thread, self.depth) == (other.thread, other.depth)
        return self.code is not None and not same_place and self.is_running()

    def stack(self) -> str:
        """Where the thread is now."""
        return "".join(traceback.format_stack(self._frame()))

    def _frame(self) -> FrameType | None:
        return sys._current_frames().get(self.thread)
