"""Episodes for policies that look: from a store's decoded pictures, checked against what the policy learned from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robopref.arrays import InputError, Trajectory
from robopref.data.picture_cache import cached, frame_shape
from robopref.data.store import TrajectoryStore
from robopref.pictures import PictureSpec
from robopref.stages.environments import environments


def load_episodes(store: TrajectoryStore, pictures: PictureSpec) -> list[Trajectory]:
    """All episodes of a store, with the pictures that a policy wants.

    Raises `InputError` for a camera that the store lacks, pictures of another size, and ones that are drawn otherwise.
    """
    for camera in pictures.cameras:
        height, width, _ = frame_shape(store, camera)
        pictures.check_drawn(f"{store.root} ({camera})", {**drawn(store), "height": height, "width": width})
    return cached(store, pictures.cameras, tell=lambda text: print(text, flush=True))


def drawn(store: TrajectoryStore) -> dict[str, Any]:
    """The render settings that a store's pictures were taken with; empty where nobody recorded them."""
    return dict(store.info.get("robopref", {}).get("render", {}))


def pictures_of(policy: Mapping[str, Any]) -> PictureSpec:
    """The pictures that a policy's configuration asks for; none where it has no eyes."""
    eyes = policy.get("eyes")
    if not eyes:
        return PictureSpec()
    size = eyes.get("size", 84)
    height, width = (size, size) if isinstance(size, int) else size
    return PictureSpec(tuple(eyes["cameras"]), (height, width))


def with_settings(policy: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A policy's configuration that also says how its pictures were drawn."""
    if not policy.get("eyes"):
        return dict(policy)
    return {**policy, "eyes": {**policy["eyes"], "render": dict(settings)}}


def settings_of(env: dict[str, Any], cameras: tuple[str, ...]) -> dict[str, Any]:
    """What is recorded beside pictures: how the environment of a configuration draws them, and by which cameras; empty without any."""
    if not cameras:
        return {}
    if len(set(cameras)) < len(cameras):
        raise InputError(f"cameras: got {list(cameras)}, wanted each camera once.")
    return {**environments(env, 4)[0].render_settings, "cameras": list(cameras)}
