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

"""What a check cannot look at, as an exception with the reason and with what it did see."""


class Unseen(Exception):
    """
    Raised by a check that cannot tell, or not all.

    Args:
        reason (`str`):
            Why, in words.
        seen (`dict[str, float]`, *optional*):
            Metrics of what it did look at.
    """

    def __init__(self, reason: str, seen: dict[str, float] | None = None):
        super().__init__(reason)
        self.seen = seen or {}
