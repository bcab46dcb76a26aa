"""A network namespace for a suite that needs well-known ports or a host name of its own.

The suite's file is run again inside it: only loopback is there, every port is free, and /etc/hosts
is a file of its own. The namespace is removed after the suite.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import harness

INSIDE = "--inside"


def run(main, *names):
    """Like `harness.run`, in a namespace where `names` are loopback's."""
    if INSIDE in sys.argv:
        harness.run(main)
    try:
        sys.exit(outside(names))
    except harness.Skip as reason:
        print(f"{pathlib.Path(sys.argv[0]).stem}: could not run: {reason}")
        sys.exit(1 if harness.REQUIRE_ALL else harness.SKIPPED)


def outside(names):
    if os.geteuid() != 0:
        raise harness.Skip("a network namespace needs root")
    ip = harness.need("ip")
    name = f"device-streams-{os.getpid()}"
    made = subprocess.run([ip, "netns", "add", name], capture_output=True, text=True)
    if made.returncode != 0:
        raise harness.Skip(f"no network namespace can be made here: {made.stderr.strip()}")
    hosts = pathlib.Path("/etc/netns") / name
    no_others = not hosts.parent.exists()
    inner = None

    def pass_on(number, _):
        if inner:
            inner.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    try:
        hosts.mkdir(parents=True)
        (hosts / "hosts").write_text(f"127.0.0.1 {' '.join(['localhost', *names])}\n")
        subprocess.run([ip, "-n", name, "link", "set", "lo", "up"], check=True)
        command = [ip, "netns", "exec", name, sys.executable, sys.argv[0], INSIDE]
        inner = subprocess.Popen(command, start_new_session=True)
        return inner.wait()
    finally:
        subprocess.run([ip, "netns", "del", name])
        shutil.rmtree(hosts, ignore_errors=True)
        # Another suite's may be there by now.
        if no_others:
            with contextlib.suppress(OSError):
                hosts.parent.rmdir()
