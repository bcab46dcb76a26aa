"""A chain: programs on loopback, one behind the other, from the address to which the load
connects, to the daemon."""

import contextlib
import pathlib
import shutil
import time

import harness
from harness import check
from measuring import load, processes


class Chain:
    """One path from the load to the daemon. A subclass has the name and the required commands, and
    starts its programs."""

    name = ""
    about = ""  # one line for the table's legend
    needs = ()  # required commands, alternatives as "a|b"
    install = ""  # how to install them

    def __init__(self, lab, daemon):
        self.lab = lab
        self.target = daemon.address
        self.target_port = daemon.port
        self.folder = pathlib.Path(lab.folder) / self.name
        self.address = ""  # the address to which the load connects: set by the subclass
        self.started = []

    @classmethod
    def missing(cls):
        """The commands that are not installed; None when the chain can run."""
        missing = [
            names for names in cls.needs if not any(map(harness.find_tool, names.split("|")))
        ]
        return ", ".join(missing) or None

    @classmethod
    def versions(cls):
        """Program to version, for the record."""
        return {}

    def launch(self):
        """Starts the programs, and sets `address`."""
        raise NotImplementedError

    # For measurements

    def start(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        already = len(self.lab.processes)
        try:
            self.launch()
        finally:
            self.started = self.lab.processes[already:]
        self.fresh_descriptors = processes.descriptors(self.pids)
        return self

    @property
    def pids(self):
        return [process.pid for process in self.started]

    def run(self, *words):
        """A measurement through this chain."""
        for process in self.started:
            check(process.running(), f"{self.name}: {process.name} has ended: {process.tail()}")
        command, *options = words
        return load.run(command, "--to", self.address, *options)

    def echo(self):
        """One connection with an echo: verifies that the chain works, and opens a session."""
        return self.run("open", "--count", 1)

    def settle(self, slack=12, timeout=15):
        """Waits until earlier connections are closed: a plain device stream stays open for
        some seconds after the end of input."""
        deadline = time.monotonic() + timeout
        while processes.descriptors(self.pids) > self.fresh_descriptors + slack:
            if time.monotonic() > deadline:
                return
            time.sleep(0.1)

    def stop(self):
        for process in reversed(self.started):
            process.stop()
        self.started = []

    # For subclasses

    def program(self, name, argv, **options):
        """Starts a program of the chain."""
        return self.lab.start(f"{self.name}-{name}", argv, **options)

    def wait_for_listener(self, process, port):
        """Waits until the program listens there; fails with its output if it ends instead."""

        def listens():
            check(process.running(), f"{process.name} ended: {process.tail()}")
            return _listens(port)

        harness.wait_until(listens, 20, f"{process.name} listens on port {port}")


def _listens(port):
    """Whether a program listens on the port, without a connection, which may open a stream."""
    wanted = f":{port:04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table) as lines:
            for line in lines:
                fields = line.split()
                if fields[1].endswith(wanted) and fields[3] == "0A":
                    return True
    return False
