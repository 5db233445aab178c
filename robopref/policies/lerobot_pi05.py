"""lerobot's pi0.5 (Physical Intelligence 2025) from its checkpoint folder, with the surrogate score of `policies/flow.py`.

The state is read in words behind the task, as one of 256 bins a number; the action expert sees noisy actions alone.
"""

from __future__ import annotations

from typing import Any

from robopref.networks.lerobot_flow import LeRobotFlow
from robopref.networks.lerobot_pi import LeRobotPi, with_state
from robopref.types import Observation


class LeRobotPi05(LeRobotFlow, LeRobotPi):
    """Carries noise to a chunk by lerobot's own network and statistics.

    checkpoint: the content of its config.json; probes: M; tokenizer: folder of PaliGemma's; bfloat16: of the weights.
    """

    kind = "pi05"

    def inputs(self, observation: Observation) -> tuple[Any, ...]:
        """Pictures and their masks, tokens and their mask."""
        batch = self.latest(observation)
        asked = with_state(self.sentences(observation), batch["observation.state"])
        read = self.tokens([f"{one}Action: " for one in asked])
        return *self.body.policy._preprocess_images(batch), *read
