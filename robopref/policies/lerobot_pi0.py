"""lerobot's pi0 (Black et al. 2024) from its checkpoint folder, with the surrogate score of `policies/flow.py`.

The state is a token of the action expert; the sentence is read by PaliGemma, whose tokenizer must lie in a local folder.
"""

from __future__ import annotations

from typing import Any

from robopref.networks.lerobot_flow import LeRobotFlow, ended
from robopref.networks.lerobot_pi import LeRobotPi
from robopref.types import Observation


class LeRobotPi0(LeRobotFlow, LeRobotPi):
    """Carries noise to a chunk by lerobot's own network and statistics.

    checkpoint: the content of its config.json; probes: M; tokenizer: folder of PaliGemma's; bfloat16: of the weights.
    """

    kind = "pi0"

    def inputs(self, observation: Observation) -> tuple[Any, ...]:
        """Pictures and their masks, tokens and their mask, padded state."""
        batch, policy = self.latest(observation), self.body.policy
        read = self.tokens(ended(self.sentences(observation)))
        return *policy._preprocess_images(batch), *read, policy.prepare_state(batch)
