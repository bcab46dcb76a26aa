"""Runs `stream-load`: its daemon, its measurements, its held connections."""

import contextlib
import json
import resource
import subprocess

import harness
from harness import Failure, check

MIB = 1024 * 1024


class Daemon:
    """The daemon at the far end of every chain."""

    def __init__(self, lab):
        self.process = lab.start(
            "stream-load-daemon",
            [harness.binary("stream-load"), "serve", "--listen", "127.0.0.1:0"],
            stdin=subprocess.PIPE,
        )
        match = self.process.wait_for(r'"listening":"127\.0\.0\.1:(\d+)"')
        self.port = int(match[1])

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"


def run(*words, timeout=300):
    """One measurement; returns its result, with the CPU seconds of the load itself."""
    argv = [str(harness.binary("stream-load")), "--timeout", str(timeout), *map(str, words)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        result = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout + 10
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"stream-load {words[0]} hangs") from None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    reason = result.stderr.strip().removeprefix("stream-load: ") or "stream-load failed"
    check(result.returncode == 0, reason)
    figures = harness.json_of(result.stdout)
    figures["load_cpu"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return figures


@contextlib.contextmanager
def held(lab, name, *words, timeout=300):
    """Holds something, such as connections, while the block runs; yields its first line. At the end
    all of it must still be alive."""
    process = lab.start(
        name,
        [harness.binary("stream-load"), "--timeout", str(timeout), *words],
        stdin=subprocess.PIPE,
    )
    try:
        line = process.wait_for(r"^\{.*\}$", timeout=timeout)
        yield json.loads(line[0])
        process.popen.stdin.close()
        check(process.wait(60) == 0, f"{name}: {process.stderr.strip()}")
    finally:
        process.stop()
