"""The environment of a measurement: its programs, which end with it, and its folder."""

import contextlib
import os
import shutil
import signal


def prepare():
    """Disables HTTP proxies. On a signal to stop, started programs are ended and changed settings
    are restored."""
    for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[variable]
    import harness

    harness.STOP.install()


@contextlib.contextmanager
def of(name):
    """A lab of the real-world tests; its logs stay in target/realworld."""
    import harness

    lab = harness.Lab(f"bench-{name}")
    try:
        yield lab
    finally:
        running = [process for process in lab.processes if process.popen.returncode is None]
        for process in reversed(running):
            process.signal(signal.SIGTERM)
        for process in reversed(running):
            process.stop()
        shutil.rmtree(lab.folder, ignore_errors=True)
