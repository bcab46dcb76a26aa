"""The figures that are measured of a chain, and their values of several rounds."""

import statistics
from dataclasses import dataclass

HIGHER, LOWER = "higher", "lower"


@dataclass(frozen=True)
class Figure:
    key: str
    title: str
    unit: str
    better: str
    kind: str  # for --only
    compared: bool = True  # whether a ratio is shown


def _bulk():
    for connections in (1, 8):
        for way in ("up", "down"):
            yield Figure(f"bulk_{way}_{connections}", f"bulk {way} ×{connections}", "MiB/s", HIGHER, "bulk")
    for connections in (1, 8):
        for way in ("up", "down"):
            yield Figure(f"cpu_{way}_{connections}", f"CPU {way} ×{connections}", "s/GiB", LOWER, "bulk")
    for connections in (1, 8):
        for way in ("up", "down"):
            title = f"load + daemon {way} ×{connections}"
            yield Figure(f"load_cpu_{way}_{connections}", title, "s/GiB", LOWER, "bulk", compared=False)


def _ping():
    for size in (1, 64):
        for point in ("p50", "p99"):
            yield Figure(f"ping_{size}_{point}", f"{size}-byte round trip {point}", "µs", LOWER, "ping")


def _line():
    for way in ("up", "down"):
        for first in ("session", "plain"):
            title = f"beside TCP, {way}, {first} first"
            yield Figure(f"share_{way}_{first}", title, "% of the line", HIGHER, "line", compared=False)
    for way in ("up", "down"):
        yield Figure(f"both_{way}", f"both ways at once, {way}", "Mbit/s", HIGHER, "line", compared=False)
    for what in ("up", "down", "both"):
        title = f"keystroke p99 beside bulk {what}"
        yield Figure(f"late_{what}", title, "ms more", LOWER, "line", compared=False)


FIGURES = [
    *_bulk(),
    *_ping(),
    Figure("open_p50", "open + first echo p50", "µs", LOWER, "open"),
    Figure("open_p99", "open + first echo p99", "µs", LOWER, "open"),
    Figure("opens", "opens at 32 at a time", "1/s", HIGHER, "opens"),
    Figure("opens_cpu", "CPU per open, 32 at a time", "ms", LOWER, "opens"),
    Figure("opens_errors", "opens that failed", "", LOWER, "opens", compared=False),
    Figure("memory_fresh", "memory fresh", "MiB", LOWER, "memory"),
    Figure("memory_bulk", "memory after bulk ×8", "MiB", LOWER, "memory"),
    Figure("memory_idle", "memory per idle connection", "KiB", LOWER, "memory"),
    Figure("idle_cpu", "idle CPU", "% of a core", LOWER, "idle", compared=False),
    *_line(),
]
BY_KEY = {figure.key: figure for figure in FIGURES}
KINDS = list(dict.fromkeys(figure.kind for figure in FIGURES))


class Results:
    """Figures of each chain, one value for each round, and errors."""

    def __init__(self, chains):
        self.values = {chain: {} for chain in chains}
        self.errors = {chain: [] for chain in chains}
        self.disturbed = []

    def add(self, chain, **figures):
        for key, value in figures.items():
            self.values[chain].setdefault(key, []).append(value)

    def fail(self, chain, text):
        self.errors[chain].append(text)

    def median(self, chain, key):
        values = self.values.get(chain, {}).get(key)
        return statistics.median(values) if values else None

    def spread(self, chain, key):
        """Largest minus smallest, in per cent of the median."""
        values = self.values[chain].get(key)
        median = self.median(chain, key)
        return 100 * (max(values) - min(values)) / median if values and median else None

    def ratio(self, chain, reference, key):
        ours, theirs = self.median(chain, key), self.median(reference, key)
        return ours / theirs if ours is not None and theirs else None

    def to_json(self, baseline):
        return {
            chain: {
                "figures": {
                    key: {
                        "unit": BY_KEY[key].unit,
                        "median": _rounded(self.median(chain, key)),
                        "spread_percent": _rounded(self.spread(chain, key)),
                        "values": [_rounded(value) for value in values],
                        "ratio": _rounded(self.ratio(chain, baseline, key)) if BY_KEY[key].compared else None,
                    }
                    for key, values in figures.items()
                },
                "errors": self.errors[chain],
            }
            for chain, figures in self.values.items()
        }


def _rounded(value):
    return None if value is None else float(f"{value:.5g}")
