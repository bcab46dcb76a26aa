"""The cost of processes, from /proc: CPU seconds, resident memory, descriptors. Always of the given
processes and of their descendants."""

import os
import pathlib
import time

TICKS = os.sysconf("SC_CLK_TCK")


def tree(pids):
    """These processes and their descendants."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := stat(entry)):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, waiting = [], list(pids)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def stat(pid):
    """The fields of /proc/PID/stat from the state on; None when the process is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


class CpuClock:
    """CPU seconds of processes, measured in two ways: the clock ticks (10 ms) of all threads that
    ever ran in them, and the scheduler's nanoseconds of threads that are alive."""

    def __init__(self, pids):
        self.pids = list(pids)
        self.start = self.read()

    def read(self):
        ticks, threads = 0, {}
        for pid in tree(self.pids):
            fields = stat(pid)
            if fields:
                # utime, stime, and those of children that have ended.
                ticks += sum(map(int, fields[11:15]))
            for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
                try:
                    threads[int(task.name)] = int((task / "schedstat").read_text().split()[0])
                except (OSError, ValueError, IndexError):
                    continue
        return time.monotonic(), ticks, threads

    def seconds(self):
        """CPU seconds since the start: from nanoseconds, or from ticks if threads have ended since,
        which only the ticks include."""
        _, ticks, threads = self.read()
        _, ticks_before, before = self.start
        coarse = (ticks - ticks_before) / TICKS
        fine = sum(count - before.get(task, 0) for task, count in threads.items()) / 1e9
        # The ticks of each process may lag by one or two.
        slack = 2 * (len(tree(self.pids)) + 1) / TICKS
        whole = before.keys() <= threads.keys() and abs(coarse - fine) <= max(slack, 0.05 * coarse)
        return fine if whole else coarse

    def share(self):
        """Per cent of one core since the start."""
        return 100 * self.seconds() / (time.monotonic() - self.start[0])


class OthersClock:
    """The share of the machine that other programs take during a measurement."""

    def __init__(self):
        self.cores = len(os.sched_getaffinity(0))
        self.start = self.read()

    def read(self):
        ours = set(tree([os.getpid()]))
        ticks = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) in ours:
                continue
            # The kernel's own threads (children of process 2) work for all programs.
            if (fields := stat(entry)) and fields[1] != "2":
                ticks[int(entry)] = sum(map(int, fields[11:15]))
        return time.monotonic(), ticks

    def share(self):
        """Per cent of all cores since the start."""
        now, ticks = self.read()
        begun, before = self.start
        # An ended process is in its parent's count; a new one began at zero.
        spent = sum(ticks.values()) - sum(count for pid, count in before.items() if pid in ticks)
        gone = sum(count for pid, count in before.items() if pid not in ticks)
        return 100 * max(0, spent - gone) / TICKS / max(now - begun, 0.01) / self.cores


def memory(pids, what="rss"):
    """Memory of all of them in MiB: `rss`, or `pss`, which counts shared pages once."""
    total = 0
    for pid in tree(pids):
        try:
            total += _kib(pid, what)
        except (OSError, StopIteration):
            continue
    return total / 1024


def peak(pid):
    """The most resident memory of a process since its start, or since `reset_peak`, in MiB."""
    return _kib(pid, "peak") / 1024


def reset_peak(pid):
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


def _kib(pid, what):
    names = {"rss": ("status", "VmRSS:"), "pss": ("smaps_rollup", "Pss:"), "peak": ("status", "VmHWM:")}
    name, label = names[what]
    with open(f"/proc/{pid}/{name}") as file:
        return int(next(line for line in file if line.startswith(label)).split()[1])


def descriptors(pids):
    count = 0
    for pid in tree(pids):
        try:
            count += len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            continue
    return count
