"""The machine: its description, its descriptor limit, its congestion control."""

import contextlib
import os
import pathlib
import platform
import resource
import subprocess

import harness
from harness import Failure

CONGESTION = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control")
DESCRIPTORS = 65_536


def describe():
    model = next((line for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?: ?")
    total = (line for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    memory = next((int(line.split()[1]) for line in total), 0)
    return {
        "cpu": model.partition(":")[2].strip(),
        "cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "memory_gib": round(memory / 1024 / 1024, 1),
        "kernel": platform.release(),
        "source": _commit(),
    }


def _commit():
    words = ["git", "-C", harness.ROOT, "describe", "--always", "--dirty"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "?"


def in_words(machine):
    return f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}"


def _lines(path):
    with open(path) as file:
        return file.read().splitlines()


def raise_descriptor_limit():
    """Raises the limit of this process and of all that it starts; returns it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for soft, hard in ((max(most, DESCRIPTORS), max(most, DESCRIPTORS)), (most, most)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            return soft
    return most


def congestion():
    return CONGESTION.read_text().strip()


@contextlib.contextmanager
def congestion_control(wanted):
    """Sets the system's default while the block runs: programs use it when they create sockets.
    None leaves it as it is."""
    before = congestion()
    if wanted is None or wanted == before:
        yield before
        return
    try:
        CONGESTION.write_text(wanted + "\n")
    except OSError as error:
        reason = f"the congestion control cannot be set to {wanted} ({error.strerror})"
        raise Failure(f"{reason}; it needs root") from None
    try:
        yield wanted
    finally:
        CONGESTION.write_text(before + "\n")
