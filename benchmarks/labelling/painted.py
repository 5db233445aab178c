"""Which frame each clip really shows: recorded videos whose pictures say their own number, read back from the page.

A picture is read with `drawImage`, which takes what a video shows at that moment. All clips are drawn before any is read, because
reading is slow; a sample says how long drawing took, since on a loaded machine the clips play on between the first and the last.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robopref.arrays import Trajectory
from robopref.data.store import StoreWriter

FPS, SIZE = 25, 96
_DRAW = """
  const videos = [...document.querySelectorAll('.clips:not(.prefetched) video')];
  const pens = (window.pens_ ??= videos.map(() => { const canvas = document.createElement('canvas'); canvas.width = canvas.height = 96; return canvas.getContext('2d', { willReadFrequently: true }); }));
  const number = (pen) => { const { data } = pen.getImageData(0, 14, 96, 1); let n = 0; for (let bit = 0; bit < 8; bit++) n = 2 * n + (data[4 * (12 * bit + 6)] > 128); return n; };
"""
READ = f"""() => {{ {_DRAW}
  videos.forEach((video, n) => pens[n].drawImage(video, 0, 0, 96, 96));
  return pens.map(number); }}"""
"""Frame number of each clip now."""
WATCH = f"""(ms) => new Promise((done) => {{ {_DRAW}
  const seen = [], end = performance.now() + ms;
  const tick = () => {{
    const begin = performance.now(), clocks = videos.map((video) => video.currentTime);
    videos.forEach((video, n) => pens[n].drawImage(video, 0, 0, 96, 96));
    const spent = performance.now() - begin;
    seen.push([...pens.map(number), ...clocks, spent]);
    performance.now() < end ? requestAnimationFrame(tick) : done(seen);
  }};
  requestAnimationFrame(tick); }})"""
"""For each picture of the page during `ms`: frame number of both clips, their clocks in seconds, ms it took to draw both."""
SCRUB = "(n) => { const s = document.getElementById('scrub'); s.value = n; s.dispatchEvent(new Event('input')); }"


def numbered(root: Path, lengths: tuple[int, ...] = (64, 50, 60, 41)) -> Path:
    """Recorded episodes at 25 frames/s whose pictures say their frame number in eight black or white blocks, most significant first."""
    with StoreWriter(root, fps=FPS) as writer:
        for n, steps in enumerate(lengths):
            pictures = np.full((steps, SIZE, SIZE, 3), 128, np.uint8)
            for frame in range(steps):
                for bit in range(8):
                    pictures[frame, :32, bit * 12 : bit * 12 + 12] = 255 * (frame >> (7 - bit) & 1)
            seen = np.full((steps, 2), n, np.float32)
            nothing = np.zeros(steps, bool)
            writer.add(
                Trajectory(seen, seen, seen[:, 0], nothing, "count", 1, f"p{n}", "recorded", images={"wrist": pictures})
            )
    return root


def both_playing(seen: Any) -> np.ndarray:
    """Samples (N, 5) of WATCH that compare clips: both before the end of the shorter one, drawn within one frame of each other."""
    table = np.array(seen, dtype=float).reshape(-1, 5)
    shorter = table[:, :2].max(axis=0).min()
    return np.asarray(table[(table[:, :2] < shorter).all(axis=1) & (table[:, 4] < 1000 / FPS)])


def kept_up(samples: np.ndarray) -> np.ndarray:
    """Samples (M, 5) in which the browser painted both clips to within a frame of their own clocks; a starved one does not."""
    return np.asarray(samples[(np.abs(samples[:, :2] - np.floor(samples[:, 2:4] * FPS)) <= 1).all(axis=1)])
