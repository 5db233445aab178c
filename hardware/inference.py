"""What a policy server is asked, and how a policy answers: requests are checked at the door and answered in one batch.

With a judge, each request gets the best of several candidate chunks, as many as its deadline leaves time for (`pace`). Candidates that
continue a chunk all continue it, and are judged by the rows that follow those which run anyway.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from robopref.arrays import InputError
from robopref.checkpoint import fingerprint, load
from robopref.networks.guidance import network_name
from robopref.networks.language import words_of
from robopref.policies.best_of import BestOf, ImplicitReward, RewardJudge, best_rows
from robopref.policies.real_time_chunking import RealTimeChunking, continues
from robopref.types import Chunks, Observation, PolicySpec

from .pace import Pace

PROTOCOL = 1


@dataclass(frozen=True)
class Request:
    """One robot's question: what it saw, and what it will execute meanwhile."""

    state: np.ndarray
    """(K, D) float32, oldest first."""
    obs_id: int = -1
    deadline: float = float("inf")
    previous: np.ndarray | None = None
    """(n, A), n <= H: actions of the old chunk from the observation on."""
    delay: int = 0
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    """camera -> (K, height, width, 3) uint8, oldest first."""
    sentence: str = ""


def read_request(message: dict[str, Any], spec: PolicySpec, now: float) -> Request:
    """The request in a message. Raises `InputError` for what this policy cannot answer."""
    proto = message.get("robopref/proto", PROTOCOL)
    if not isinstance(proto, int) or proto != PROTOCOL:
        raise InputError(f"proto: got {str(proto)[:50]!r}, wanted {PROTOCOL}. Use the matching robopref.")
    state = message.get("state", message.get("observation/state"))
    wanted = (spec.history, spec.dims.observation)
    state = _numbers("state", state)
    if state.shape == wanted[1:]:
        state = np.broadcast_to(state, wanted)
    if state.shape != wanted:
        raise InputError(f"state: got shape {state.shape}, wanted {wanted} or {wanted[1:]}.")
    previous = message.get("robopref/previous")
    delay = message.get("robopref/delay", 0)
    if previous is not None:
        previous = _numbers("robopref/previous", previous)
        if previous.ndim != 2 or previous.shape[1] != spec.dims.action or len(previous) > spec.horizon:
            raise InputError(
                f"robopref/previous: got {previous.shape}, wanted (n <= {spec.horizon}, {spec.dims.action})."
            )
        if not isinstance(delay, int | np.integer):
            raise InputError(f"robopref/delay: got {str(delay)[:50]!r}, wanted a number of steps.")
        if not 0 <= delay <= min(len(previous), spec.horizon - len(previous)):
            # Weights fall between delay and n = H - executed, and executed must be at least the delay.
            delay = max(0, min(int(delay), len(previous), spec.horizon - len(previous)))
    deadline = message.get("robopref/deadline_ms")
    ends = now + float(deadline) / 1000 if isinstance(deadline, int | float) else float("inf")
    obs_id = message.get("robopref/obs_id", -1)
    images, sentence = _pictures(message, spec), _sentence(message, spec)
    return Request(state, obs_id if isinstance(obs_id, int) else -1, ends, previous, delay, images, sentence)


def _pictures(message: dict[str, Any], spec: PolicySpec) -> dict[str, np.ndarray]:
    """What the policy looks at, from `images` or openpi's `observation/NAME`; other pictures are passed over."""
    sent, found = message.get("images", {}), {}
    for camera in spec.pictures.cameras:
        picture = sent.get(camera) if isinstance(sent, dict) else None
        picture = message.get(f"observation/{camera}") if picture is None else picture
        wanted = (spec.history, *spec.pictures.size, 3)
        if (
            not isinstance(picture, np.ndarray)
            or picture.dtype != np.uint8
            or picture.shape not in (wanted, wanted[1:])
        ):
            got = f"{picture.shape} {picture.dtype}" if isinstance(picture, np.ndarray) else type(picture).__name__
            raise InputError(f"images[{camera}]: got {got}, wanted {wanted} or {wanted[1:]} uint8.")
        found[camera] = np.broadcast_to(picture, wanted)
    return found


def _sentence(message: dict[str, Any], spec: PolicySpec) -> str:
    """What is asked for, in openpi's `prompt`; empty for a policy that does not read."""
    prompt = message.get("prompt", "")
    if not spec.words:
        return ""
    if not isinstance(prompt, str):
        raise InputError(f"prompt: got {type(prompt).__name__}, wanted a sentence.")
    words_of(prompt, spec.words)  # refused here, where the sender is told
    return prompt


def _numbers(name: str, value: object) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise InputError(f"{name}: got {type(value).__name__}, wanted an array of numbers.")
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused
        array = value.astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError(f"{name}: got NaN or infinity, wanted finite numbers.")
    return array


class Inference:
    """A policy that answers batches of requests; runs on one thread.

    judge: scores candidate chunks, see `robopref.policies.best_of`; pace: how many are drawn. A `BestOf` brings its own judge, and draws
    at most as many as it was made for. Raises `InputError` for several candidates without a judge.
    """

    def __init__(
        self,
        policy: Any,
        policy_hash: str = "",
        device: str = "cpu",
        precision: Literal["float32", "bf16"] = "float32",
        compile: bool = False,
        mode: Literal["guidance", "prefix"] = "prefix",
        seed: int = 0,
        judge: Any = None,
        pace: Pace | None = None,
    ) -> None:
        if precision not in ("float32", "bf16"):
            raise InputError(f"precision: got {precision!r}, wanted float32 or bf16.")
        policy = policy.acting() if hasattr(policy, "acting") else policy
        if isinstance(policy, BestOf) and judge is None:
            policy, judge, pace = policy.policy, policy.judge, pace or Pace(policy.candidates)
        self.pace = pace or Pace()
        if self.pace.most > 1 and judge is None:
            raise InputError(
                f"candidates: got {self.pace.most} without a judge, wanted one that says which is best.\n"
                "Say reference=DIR, the policy that this one was aligned against, or reward=DIR, a reward model that looks at actions."
            )
        self.policy, self.policy_hash, self.device = policy.to(device).eval(), policy_hash, torch.device(device)
        self.judge: Any = None if judge is None else judge.to(device).eval()
        self.chunking = RealTimeChunking(policy, mode) if continues(policy) else None
        if compile:
            name = network_name(policy)
            if name is None:
                raise InputError(f"compile: got a {type(policy).__name__}, wanted a policy with one network.")
            setattr(policy, name, torch.compile(getattr(policy, name)))
        self._bf16 = precision == "bf16"
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self.drawn = 1
        """Candidates per request of the last answer."""

    @property
    def spec(self) -> PolicySpec:
        """Shapes of the policy."""
        return self.policy.spec

    def answer(self, requests: list[Request]) -> list[np.ndarray]:
        """One chunk (H, A) float32 per request, in one batch; with a judge the best of as many as there is time for."""
        begin = time.monotonic()
        continuing = self._continues(requests)
        left = min(request.deadline for request in requests) - begin
        self.drawn = 1 if self.judge is None else self.pace.choose(len(requests), continuing, left)
        chunks = self._best(requests, self.drawn)
        self.pace.took(self.drawn * len(requests), continuing, time.monotonic() - begin)
        return chunks

    def _continues(self, requests: list[Request]) -> bool:
        return self.chunking is not None and any(request.previous is not None for request in requests)

    def _best(self, requests: list[Request], candidates: int) -> list[np.ndarray]:
        """The best of `candidates` chunks for each request."""
        rows = torch.arange(len(requests), device=self.device).repeat_interleave(candidates)
        many = [request for request in requests for _ in range(candidates)]
        observation = self._seen(requests)[rows]
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            if self._continues(requests):
                assert self.chunking is not None
                chunks = self.chunking.resume(observation, *self._continuing(many), self._generator)
            else:
                chunks = self.policy.act(observation, self._generator)
            if candidates > 1:
                chunks = chunks[best_rows(self.judge, Chunks(observation, chunks, self._judged(many)), candidates)]
        return list(chunks.float().cpu().numpy())

    def _judged(self, requests: list[Request]) -> torch.Tensor:
        """Which rows a judge looks at, (B, H, A): the E that follow those which run while the answer is computed."""
        begin = torch.tensor([r.delay if r.previous is not None and self.chunking else 0 for r in requests])[:, None]
        row = torch.arange(self.spec.horizon)[None]
        mask = (row >= begin) & (row < begin + self.spec.execute)
        return mask[..., None].expand(-1, -1, self.spec.dims.action).float().to(self.device)

    def _seen(self, requests: list[Request]) -> Observation:
        state = torch.from_numpy(np.stack([request.state for request in requests])).to(self.device)
        images = {
            camera: torch.from_numpy(np.stack([request.images[camera] for request in requests])).to(self.device)
            for camera in self.spec.pictures.cameras
        }
        return Observation(state, images, tuple(request.sentence for request in requests) if self.spec.words else ())

    def _continuing(self, requests: list[Request]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        horizon, actions = self.spec.horizon, self.spec.dims.action
        previous = np.zeros((len(requests), horizon, actions), dtype=np.float32)
        delay, executed = [0] * len(requests), [horizon] * len(requests)
        for row, request in enumerate(requests):
            if request.previous is not None and len(request.previous):
                previous[row, : len(request.previous)] = request.previous
                delay[row], executed[row] = request.delay, horizon - len(request.previous)
        return torch.from_numpy(previous).to(self.device), torch.tensor(delay), torch.tensor(executed)

    def warm_up(self, rounds: int = 3) -> None:
        """Answer made-up requests, so that the first real one is not the slow one."""
        spec = self.spec
        images = {c: np.zeros((spec.history, *spec.pictures.size, 3), np.uint8) for c in spec.pictures.cameras}
        first = Request(
            np.zeros((spec.history, spec.dims.observation), np.float32),
            images=images,
            sentence="go" if spec.words else "",
        )
        previous = np.zeros((spec.horizon // 2, spec.dims.action), dtype=np.float32)
        resumed = replace(first, previous=previous, delay=min(1, len(previous)))
        for size in self.pace.sizes:
            for _ in range(rounds):
                for continuing, request in ((False, first), (self.chunking is not None, resumed)):
                    begin = time.monotonic()
                    self._best([request], size)
                    self.pace.learn(size, continuing, time.monotonic() - begin)


def inference_of(
    folder: Path,
    reference: Path | None = None,
    reward: Path | None = None,
    candidates: int | None = None,
    budget: float = 0.1,
    **options: Any,
) -> Inference:
    """The policy of a model folder, ready to serve.

    reference: the policy it was aligned against, whose likelihood ratio judges `candidates` chunks; reward: a reward model that judges
    them instead. budget: seconds that an answer may take. Raises `InputError` when the folder is no policy, and for both judges at once.
    """
    policy = load(folder)
    if not hasattr(policy, "act"):
        raise InputError(f"{folder}: got no policy, wanted a folder that pretrain or align wrote.")
    if reference is not None and reward is not None:
        raise InputError("candidates: got reference and reward, wanted one judge. Leave one out.")
    judge: Any = None
    if reference is not None:
        judge = ImplicitReward(policy, load(reference))
    elif reward is not None:
        judge = RewardJudge(load(reward), policy.spec.execute)
    own = policy.candidates if isinstance(policy, BestOf) and judge is None else 8 if judge is not None else 1
    pace = Pace(own if candidates is None else candidates, budget)
    return Inference(policy, fingerprint(folder), judge=judge, pace=pace, **options)
