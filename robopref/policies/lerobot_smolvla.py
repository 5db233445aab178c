"""lerobot's SmolVLA (Shukor et al. 2025) from its checkpoint folder, with the surrogate score of `policies/flow.py`.

`vlm_model_name` of the checkpoint must be a local folder with the language model's config.json and tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robopref.arrays import InputError
from robopref.networks.lerobot_flow import LeRobotFlow, ended
from robopref.types import Observation


class LeRobotSmolVLA(LeRobotFlow):
    """Carries noise to a chunk by lerobot's own network and statistics. checkpoint: the content of its config.json; probes: M."""

    kind = "smolvla"

    def __init__(self, checkpoint: Mapping[str, Any], probes: int = 4) -> None:
        name = Path(str(checkpoint.get("vlm_model_name")))
        if not (name / "config.json").is_file():
            raise InputError(
                f"LeRobotSmolVLA: got vlm_model_name={str(name)!r}, wanted a local folder with config.json and tokenizer: nothing is "
                "downloaded.\nhf download HuggingFaceTB/SmolVLM2-500M-Video-Instruct --local-dir DIR, and name DIR in config.json."
            )
        super().__init__(checkpoint, probes)
        self.padding = self.body.policy.config.pad_language_to
        self.tokenizer = self.body.policy.model.vlm_with_expert.processor.tokenizer

    def inputs(self, observation: Observation) -> tuple[Any, ...]:
        """Pictures and their masks, tokens and their mask, padded state."""
        batch, policy = self.latest(observation), self.body.policy
        read = self.tokens(ended(self.sentences(observation)))
        return *policy.prepare_images(batch), *read, policy.prepare_state(batch)
