"""Control messages on their way to the arm node: bounded, in order, and a stop is never among those that are dropped."""

from __future__ import annotations

import json
import threading
from collections import deque
from typing import Any

STOP = {"op": "estop"}
_MOST = 16


def control(text: str, limit: int = 1000) -> dict[str, Any]:
    """A control message from its JSON text; an empty one for anything else."""
    if not isinstance(text, str) or len(text) > limit:
        return {}
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


class Controls:
    """What came since the node last looked. Filled and emptied by different threads."""

    def __init__(self) -> None:
        self._lock, self._waiting, self.dropped = threading.Lock(), deque[dict[str, Any]](), 0

    def put(self, message: dict[str, Any]) -> None:
        """Keep a message. A stop takes the place of all that wait, so there is always room for it; others are dropped where there is none."""
        with self._lock:
            if message.get("op") == "estop":
                self._waiting.clear()
                self._waiting.append(STOP)
            elif message and len(self._waiting) < _MOST:
                self._waiting.append(message)
            else:
                self.dropped += 1

    def take(self) -> list[dict[str, Any]]:
        """All that wait, in order."""
        with self._lock:
            taken = list(self._waiting)
            self._waiting.clear()
        return taken
