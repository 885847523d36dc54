"""How far a download is, on standard error: rate and time left."""

import sys
import threading
import time

UNITS = ("B", "kB", "MB", "GB", "TB")


class Progress:
    """Progress of one or several files of `total` bytes together (0: not known); threads may add to it at once.

    On a terminal one line is rewritten twice a second; in a log a line is added every `quiet` seconds.
    """

    def __init__(self, total: int = 0, quiet: float = 15.0) -> None:
        self.total = total
        self._terminal = sys.stderr.isatty()
        self._every = 0.5 if self._terminal else quiet
        self._lock = threading.Lock()
        self._began = self._shown = time.monotonic()
        self._here = self._moved = 0

    def add(self, count: int, moved: bool = True) -> None:
        """`count` more bytes are here; `moved` where they came over the network just now."""
        with self._lock:
            self._here += count
            self._moved += count if moved else 0
            now = time.monotonic()
            if now - self._shown >= self._every:
                self._shown = now
                self._show(now)

    def finish(self) -> None:
        """Leave the line on the terminal as it is."""
        with self._lock:
            if self._terminal and self._moved:
                self._show(time.monotonic())
                print(file=sys.stderr)

    def _show(self, now: float) -> None:
        rate = self._moved / max(now - self._began, 1e-9)
        text = f"{readable(self._here)} here, {readable(rate)}/s"
        if self.total > self._here:
            left = (self.total - self._here) / rate if rate else float("inf")
            text = f"{100 * self._here / self.total:.0f} % of {readable(self.total)}, {readable(rate)}/s"
            text += f", {_span(left)} left" if left < 1e7 else ""
        print(f"\r\x1b[K{text}" if self._terminal else text, end="" if self._terminal else "\n", file=sys.stderr)
        sys.stderr.flush()


def readable(count: float) -> str:
    """A number of bytes for people: 1.7 GB."""
    for unit in UNITS:
        if count < 1000 or unit == UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
