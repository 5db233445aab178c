"""Meta-World's reward helpers on plain floats: the same numbers, without an array for each of them.

Each function falls back to Meta-World's own where its arguments are not the usual scalars, so that nothing is assumed
about tasks that were not read. Equality is tested on all 50 tasks.
"""

from __future__ import annotations

import math
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from .upstream import reward_utils

_FLOAT64 = np.dtype(np.float64)
_DEFAULT = 0.1
"""Value of a sigmoid one margin away from its bounds, Meta-World's default."""
_LONG_TAIL_SCALE = math.sqrt(1 / _DEFAULT - 1)
_GAUSSIAN_SCALE = math.sqrt(-2 * math.log(_DEFAULT))


def tolerance(
    x: Any,
    bounds: tuple[float, float] = (0.0, 0.0),
    margin: Any = 0.0,
    sigmoid: str = "gaussian",
    value_at_margin: float = _DEFAULT,
) -> Any:
    """1 within `bounds`, falling to 0.1 one `margin` away (`reward_utils.tolerance` for one number)."""
    usual = isinstance(x, float) and sigmoid in ("long_tail", "gaussian") and value_at_margin == _DEFAULT
    lower, upper = bounds
    if not usual or not lower <= upper or not margin > 0:
        return reward_utils.tolerance(x, bounds, margin, sigmoid, value_at_margin)  # type: ignore[arg-type, unused-ignore]
    x = float(x)
    if lower <= x <= upper:
        return 1.0
    distance = (lower - x if x < lower else x - upper) / float(margin)
    if sigmoid == "long_tail":
        return 1 / ((distance * _LONG_TAIL_SCALE) ** 2 + 1)
    return math.exp(-0.5 * (distance * _GAUSSIAN_SCALE) ** 2)


def hamacher_product(a: Any, b: Any) -> Any:
    """a b / (a + b - a b), 0 where both are 0."""
    if not (isinstance(a, (float, int)) and isinstance(b, (float, int))):
        return reward_utils.hamacher_product(a, b)
    a, b = float(a), float(b)
    if not (0.0 <= a <= 1.0 and 0.0 <= b <= 1.0):
        return reward_utils.hamacher_product(a, b)
    denominator = a + b - (a * b)
    return (a * b) / denominator if denominator > 0 else 0


def norm(x: Any, ord: Any = None, **named: Any) -> Any:
    """`numpy.linalg.norm`, direct for the length of a vector of float64."""
    if type(x) is np.ndarray and x.dtype == _FLOAT64 and x.ndim == 1 and (ord is None or ord == 2) and not named:
        return np.float64(math.sqrt(x.dot(x)))
    return np.linalg.norm(x, ord, **named)


def clip(x: Any, low: Any, high: Any, **named: Any) -> Any:
    """`numpy.clip`, direct for one number between numbers."""
    if isinstance(x, (np.float32, np.float64)) and isinstance(low, (float, int)) and isinstance(high, (float, int)):
        return type(x)(min(max(x, low), high))
    return np.clip(x, low, high, **named)


def _shadow(module: ModuleType, **replaced: Any) -> ModuleType:
    """A namespace like `module` with a few names replaced; the module itself stays untouched."""
    shadow = ModuleType(module.__name__)
    shadow.__dict__.update(module.__dict__)
    shadow.__dict__.update(replaced)
    return shadow


class _Orientation:
    """The one thing that tasks ask of scipy's `Rotation`: a quaternion (x, y, z, w) from a matrix (3, 3)."""

    from_euler = Rotation.from_euler

    @staticmethod
    def from_matrix(matrix: np.ndarray) -> Any:
        quaternion = quaternion_from_matrix(matrix)
        return SimpleNamespace(as_quat=lambda: quaternion)


def quaternion_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Quaternion (x, y, z, w) of a rotation matrix (3, 3), with scipy's choice of sign (Markley 2008)."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    trace = a + e + i
    largest = max(a, e, i, trace)
    if a == largest:
        x, y, z, w = 1 - trace + 2 * a, d + b, g + c, h - f
    elif e == largest:
        x, y, z, w = b + d, 1 - trace + 2 * e, h + f, c - g
    elif i == largest:
        x, y, z, w = c + g, f + h, 1 - trace + 2 * i, d - b
    else:
        x, y, z, w = h - f, c - g, d - b, 1 + trace
    length = math.sqrt(x * x + y * y + z * z + w * w)
    return np.array((x / length, y / length, z / length, w / length))


REPLACED: dict[str, Any] = {
    "np": _shadow(np, clip=clip, linalg=_shadow(np.linalg, norm=norm)),
    "reward_utils": _shadow(reward_utils, tolerance=tolerance, hamacher_product=hamacher_product),
    "tolerance": tolerance,
    "Rotation": _Orientation,
}
"""Global names of a Meta-World task module -> what our copies of its functions see instead."""


def caging_reward(
    self: Any,
    action: np.ndarray,
    obj_pos: np.ndarray,
    obj_radius: float,
    pad_success_thresh: float,
    object_reach_radius: float,
    xz_thresh: float,
    desired_gripper_effort: float = 1.0,
    high_density: bool = False,
    medium_density: bool = False,
) -> float:
    """`SawyerXYZEnv._gripper_caging_reward`, operation by operation, on floats."""
    if high_density and medium_density:
        raise ValueError("Can only be either high_density or medium_density")
    object_y, start_y = float(obj_pos[1]), float(self.obj_init_pos[1])
    sides = []
    for pad in ("leftpad", "rightpad"):
        pad_y = float(self.get_body_com(pad)[1])
        margin = abs(abs(pad_y - start_y) - pad_success_thresh)
        sides.append(tolerance(abs(pad_y - object_y), (obj_radius, pad_success_thresh), margin, "long_tail"))
    caging_y = hamacher_product(*sides)

    tcp, start, start_tcp = self.tcp_center, self.obj_init_pos, self.init_tcp
    margin = norm(start[[0, 2]] - start_tcp[[0, 2]]) - xz_thresh
    caging_xz = tolerance(norm(tcp[[0, 2]] - obj_pos[[0, 2]]), (0, xz_thresh), margin, "long_tail")
    caging = hamacher_product(caging_y, float(caging_xz))

    closed = min(max(0, action[-1]), desired_gripper_effort) / desired_gripper_effort
    gripped = hamacher_product(caging, closed if caging > 0.97 else 0.0)
    if high_density:
        gripped = (gripped + caging) / 2
    if medium_density:
        margin = abs(norm(start - start_tcp) - object_reach_radius)
        reach = tolerance(norm(obj_pos - tcp), (0, object_reach_radius), margin, "long_tail")
        gripped = (gripped + float(reach)) / 2
    return gripped
