"""What a chain is: programs on loopback, one behind the other, from an address that the
load connects to, to the daemon."""

import contextlib
import pathlib
import shutil
import time

import harness
from harness import check
from measuring import load, processes


class Chain:
    """One way from the load to the daemon. A subclass gives the name, says what must be
    installed, and starts its programs."""

    name = ""
    about = ""  # one line for the table's legend
    needs = ()  # commands that must be found, alternatives as "a|b"
    install = ""  # how to get them

    def __init__(self, lab, daemon):
        self.lab = lab
        self.target = daemon.address
        self.target_port = daemon.port
        self.folder = pathlib.Path(lab.folder) / self.name
        self.address = ""  # where the load connects to: the subclass sets it
        self.started = []

    @classmethod
    def missing(cls):
        """What is not installed; None when the chain can run."""
        missing = [names for names in cls.needs if not any(map(harness.find_tool, names.split("|")))]
        return ", ".join(missing) or None

    @classmethod
    def versions(cls):
        """Program to version, for the record."""
        return {}

    def launch(self):
        """Starts the programs, and sets `address`."""
        raise NotImplementedError

    # What the measuring uses

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
        """One connection with an echo: the chain works, and a session is open."""
        return self.run("open", "--count", 1)

    def settle(self, slack=12, timeout=15):
        """Waits until connections of the past are gone: a plain device stream stays for
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
        """Until the program listens there; what it says when it ends instead is told."""

        def listens():
            check(process.running(), f"{process.name} ended: {process.tail()}")
            return _listens(port)

        harness.wait_until(listens, 20, f"{process.name} listens on port {port}")


def _listens(port):
    """Looked up, not connected to: a connection is a stream, for some."""
    wanted = f":{port:04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table) as lines:
            for line in lines:
                fields = line.split()
                if fields[1].endswith(wanted) and fields[3] == "0A":
                    return True
    return False
