"""The targets: ratios within one run, and a few limits. `--check` compares figures with them."""

import itertools
from dataclasses import dataclass

from measuring.figures import BY_KEY


@dataclass(frozen=True)
class Target:
    chain: str
    key: str
    sign: str  # "≥", "≤" or "<"
    bound: float
    reference: str | None = "haproxy"  # None: a limit, not a ratio

    def judge(self, results):
        """The measured value, and whether it meets the target; None if it was not measured."""
        if self.reference:
            seen = results.ratio(self.chain, self.reference, self.key)
        else:
            seen = results.median(self.chain, self.key)
        if seen is None:
            return None
        holds = {"≥": seen >= self.bound, "≤": seen <= self.bound, "<": seen < self.bound}[self.sign]
        return seen, holds

    def __str__(self):
        figure = BY_KEY[self.key]
        unit = f"× {self.reference}" if self.reference else f" {figure.unit}"
        bound = f"{self.bound:g}{unit}"
        return f"{self.chain:8} {figure.title:28} {self.sign} {bound}"


def _each(chain, keys, sign, bound, reference="haproxy"):
    return [Target(chain, key, sign, bound, reference) for key in keys]


def _of(name, *words):
    return ["_".join((name, *chosen)) for chosen in itertools.product(*words)]


TARGETS = [
    *_each("plain", ("bulk_up_1", "bulk_down_1"), "≥", 1.10),
    *_each("plain", ("bulk_up_8", "bulk_down_8"), "≥", 1.20),
    *_each("plain", ("cpu_up_1", "cpu_down_1"), "≤", 0.85),
    *_each("plain", ("cpu_up_8", "cpu_down_8"), "≤", 0.80),
    Target("plain", "ping_64_p50", "≤", 0.92),
    Target("plain", "ping_64_p99", "≤", 1.0),
    Target("plain", "open_p50", "≤", 0.50),
    Target("plain", "opens", "≥", 1.5),
    Target("plain", "memory_bulk", "≤", 0.45),
    Target("plain", "memory_idle", "≤", 0.75),
    Target("plain", "idle_cpu", "<", 0.1, None),
    *_each("session", ("bulk_up_1", "bulk_down_1", "bulk_up_8", "bulk_down_8"), "≥", 0.95, "plain"),
    *_each("session", ("cpu_up_1", "cpu_down_1", "cpu_up_8", "cpu_down_8"), "≤", 1.10, "plain"),
    *_each("session", ("ping_64_p50", "ping_64_p99"), "≤", 1.05, "plain"),
    Target("session", "open_p50", "≤", 0.15),
    Target("session", "opens", "≥", 7),
    Target("session", "memory_bulk", "≤", 0.75),
    Target("session", "memory_idle", "≤", 0.17),
    Target("session", "idle_cpu", "<", 0.1, None),
    # Beside what most people would use instead.
    *_each("plain", ("bulk_up_1", "bulk_down_1"), "≥", 1.3, "wstunnel"),
    *_each("session", ("bulk_up_8", "bulk_down_8"), "≥", 1.2, "wstunnel"),
    *_each("plain", ("cpu_up_1", "cpu_down_1", "cpu_up_8", "cpu_down_8"), "≤", 0.75, "wstunnel"),
    Target("plain", "open_p50", "≤", 1.0, "wstunnel"),
    # On a line with others.
    *_each("session", _of("share", ("up", "down"), ("session", "plain")), "≥", 35, None),
    *_each("session", _of("share", ("up", "down"), ("session", "plain")), "≤", 65, None),
    *_each("session", ("both_up", "both_down"), "≥", 85, None),
    *_each("session", ("late_up", "late_down"), "≤", 20, None),
    Target("session", "late_both", "≤", 25, None),
]

# With cubic for every program, compared with the baseline's run with the system's default
# (--against FILE).
CUBIC_KEYS = ("bulk_up_1", "bulk_down_1", "bulk_up_8", "bulk_down_8")
CUBIC_BOUND = 1.25


def check(results):
    """Prints a line for each target; returns whether all were met."""
    print("\ntargets")
    good = True
    for target in TARGETS:
        judged = target.judge(results)
        if judged is None:
            verdict, seen = "-", "not measured"
        else:
            seen, holds = f"{judged[0]:.3g}", judged[1]
            verdict = "ok" if holds else "MISSED"
            good = good and holds
        print(f"  {verdict:7} {target!s:62} seen {seen}")
    return good


def check_against(results, other):
    """Compares our plain streams with the baseline of another run."""
    print("\nplain, against the baseline of the other run")
    good = True
    name = other["baseline"]
    for key in CUBIC_KEYS:
        ours = results.median("plain", key)
        theirs = other["chains"].get(name, {}).get("figures", {}).get(key, {}).get("median")
        if ours is None or not theirs:
            print(f"  -       {BY_KEY[key].title}: not measured")
            continue
        holds = ours / theirs >= CUBIC_BOUND
        good = good and holds
        verdict = "ok" if holds else "MISSED"
        bound = f"≥ {CUBIC_BOUND}× {name} ({other['congestion']})"
        print(f"  {verdict:7} {BY_KEY[key].title:28} {bound}   seen {ours / theirs:.3g}")
    return good


# The hub alone, and device-proxy: `bench/hub`.
HUB_TITLES = {
    "device_kib": "memory per idle device, KiB",
    "connects": "device connects, 1/s",
    "hub_idle_cpu": "hub's CPU with all idle, % of a core",
    "reports_cpu": "hub's CPU with all reporting once a minute, % of a core",
    "reports_database_mib": "database's files after two minutes of that, MiB",
    "method_job_s": "a job that calls a method on all, s",
    "method_job_cpu_s": "hub's CPU for that, s",
    "twin_job_s": "a job that changes the twins of all, s",
    "twin_job_cpu_s": "hub's CPU for that, s",
    "jobs_before_mib": "hub's memory with all before the jobs, MiB",
    "jobs_peak_mib": "hub's memory at most during them, MiB",
    "jobs_after_mib": "hub's memory after them, MiB",
    "stream_kib": "memory per idle stream, KiB",
    "initiations": "stream initiations, 8 at a time, 1/s",
    "initiation_p50": "stream initiation p50, µs",
    "initiation_p99": "stream initiation p99, µs",
    "proxy_kib": "hub's memory per device-proxy, MQTT-WS, KiB",
    "proxies_cpu": "hub's CPU per 1,000 device-proxies, % of a core",
    "device_proxy_mib": "device-proxy idle, MiB",
    "device_proxy_cpu": "device-proxy idle CPU, % of a core",
    "device_proxy_size": "device-proxy stripped, MiB",
}
HUB_MOST = {"device_kib": 24, "reports_cpu": 20, "proxy_kib": 24, "device_proxy_mib": 6, "device_proxy_size": 5}


def check_hub(figures):
    good = True
    print("targets")
    for key, most in HUB_MOST.items():
        holds = figures[key] <= most
        good = good and holds
        verdict = "ok" if holds else "MISSED"
        print(f"  {verdict:7} {HUB_TITLES[key]:48} ≤ {most}   seen {figures[key]:.3g}")
    return good
