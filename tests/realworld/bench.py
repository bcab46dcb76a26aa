#!/usr/bin/env python3
"""Checks that the measurements work: `bench/compare`, `bench/hub` and `bench/paths` on small volumes.
No speed is asserted here, only that every figure is there and nothing failed."""

import json
import os
import pathlib
import subprocess
import sys

import harness
from harness import ROOT, check, equal

BENCH = ROOT / "bench"
sys.path.insert(0, str(BENCH))
CHAINS = ("direct", "plain", "session")


def main(lab):
    harness.binary("stream-load")
    from measuring import line
    from measuring.figures import FIGURES, KINDS

    with lab.step("stream-load says in one sentence what is wrong"):
        port = harness.free_port()
        result = lab.run([harness.binary("stream-load"), "open", "--to", f"127.0.0.1:{port}"], ok=False)
        equal(result.returncode, 1, "exit code")
        equal(len(result.stderr.strip().splitlines()), 1, "lines of the message")
        check("no connection to" in result.stderr, result.stderr)

    with lab.step("a direct connection, our plain streams and a session side by side"):
        kinds = ",".join(kind for kind in KINDS if kind != "line")
        words = ("--chains", ",".join(CHAINS), "--only", kinds, "--baseline", "direct", "--bytes", "8M")
        said, report = run(lab, "compare", *words)
        equal(tuple(report["chains"]), CHAINS, "chains")
        for name, chain in report["chains"].items():
            equal(chain["errors"], [], f"errors of {name}")
            for figure in FIGURES:
                if figure.kind == "line":
                    continue
                value = chain["figures"].get(figure.key)
                # A direct connection has no programs in between.
                if name == "direct" and (figure.kind in ("memory", "idle") or "cpu" in figure.key):
                    continue
                check(value and value["values"], f"{name} has no {figure.title}")
                if figure.key not in ("opens_errors", "memory_idle", "idle_cpu"):
                    check(value["median"] > 0, f"{name}: {figure.title} is {value['median']}")
            equal(chain["figures"]["opens_errors"]["median"], 0, f"{name}: opens that failed")
        check(report["congestion"] and report["versions"] and report["machine"]["cores"], "the record is incomplete")
        check("round trip" in said and "plain" in said, f"no table: {said[-300:]}")

    with lab.step("a session on a line with others"):
        reason = line.missing()
        if reason:
            raise harness.Skip(reason)
        _, report = run(lab, "compare", "--chains", "session", "--only", "line")
        chain = report["chains"]["session"]
        equal(chain["errors"], [], "errors")
        expected = {figure.key for figure in FIGURES if figure.kind == "line"}
        equal(set(chain["figures"]), expected, "figures")

    with lab.step("a chain that is not installed is skipped by name"):
        words = [sys.executable, BENCH / "compare", "--quick", "--chains", "direct,bore", "--only", "ping"]
        result = lab.run(words, env={**os.environ, "PATH": "/nonexistent"})
        check("skipped bore: bore not found; cargo install bore-cli" in result.stdout, result.stdout)
        check("round trip" in result.stdout, result.stdout)

    with lab.step("the hub alone: devices, streams, initiations"):
        said, report = run(lab, "hub")
        for key, value in report["figures"].items():
            check(value >= 0, f"{key} is {value}")
        check(report["figures"]["connects"] > 0 and report["figures"]["initiations"] > 0, said)

    with lab.step("sessions on simulated paths"):
        harness.binary("stream-paths")
        words = [sys.executable, BENCH / "paths", "shared", "alone", "--only", "10 Mbit/s, 10 ms, 1 BDP"]
        lines = lab.run([*words, "--plot", lab.logs / "plot.svg"]).stdout.splitlines()
        # CUBIC and BBR, either first, and a session alone.
        equal(len(lines), 5, f"paths in {lines}")
        check(all(" rate " in line or " share " in line for line in lines), f"no figures: {lines}")
        check((lab.logs / "plot.svg").read_text().startswith("<svg"), "no plot")

    with lab.step("told to stop, it leaves nothing running"):
        file = open(lab.logs / "stopped.stdout", "w")
        with file, subprocess.Popen(
            [sys.executable, BENCH / "compare", "--quick", "--chains", "plain"],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
        ) as compare:  # fmt: skip
            try:
                harness.wait_until(lambda: len(descendants(compare.pid)) >= 4, 20, "the programs run")
                started = descendants(compare.pid)
                compare.terminate()
                compare.wait(30)
            finally:
                compare.kill()
        harness.wait_until(lambda: not any(map(running, started)), 5, "what it started has ended")


def run(lab, script, *words):
    """A quick run of a script; its output and what it wrote."""
    file = lab.folder / f"{script}.json"
    result = lab.run([sys.executable, BENCH / script, "--quick", "--json", file, *words], timeout=240)
    return result.stdout, json.loads(file.read_text())


def running(pid):
    return pathlib.Path(f"/proc/{pid}").exists()


def descendants(pid):
    from measuring.processes import tree

    return tree([pid])[1:]


if __name__ == "__main__":
    harness.run(main)
