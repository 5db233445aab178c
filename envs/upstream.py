"""What is taken from Meta-World, loaded after MuJoCo in the way that survives a missing GL library."""

from __future__ import annotations

import importlib
from typing import Any

from .gl import mujoco

__all__ = ["POLICIES", "TASK_CLASSES", "mujoco", "reward_utils"]

TASK_CLASSES: dict[str, type] = importlib.import_module("metaworld.env_dict").ALL_V3_ENVIRONMENTS
"""Canonical task name -> environment class."""
POLICIES: dict[str, type] = importlib.import_module("metaworld.policies").ENV_POLICY_MAP
"""Canonical task name -> scripted policy class."""
reward_utils: Any = importlib.import_module("metaworld.utils.reward_utils")
