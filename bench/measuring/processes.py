"""What processes cost, from /proc: CPU seconds, resident memory, descriptors. Always of
the given processes and of all that they have started."""

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
    """CPU seconds of processes, in two ways: the clock ticks of all that ever ran in them
    (10 ms), and the scheduler's nanoseconds of the threads that are alive."""

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
        """CPU seconds since the start: in nanoseconds, or in ticks where threads have ended
        since, which the ticks know of and the scheduler's counts do not."""
        _, ticks, threads = self.read()
        _, ticks_before, before = self.start
        coarse = (ticks - ticks_before) / TICKS
        fine = sum(count - before.get(task, 0) for task, count in threads.items()) / 1e9
        # Each process may be a tick or two behind.
        slack = 2 * (len(tree(self.pids)) + 1) / TICKS
        whole = before.keys() <= threads.keys() and abs(coarse - fine) <= max(slack, 0.05 * coarse)
        return fine if whole else coarse

    def share(self):
        """Per cent of one core since the start."""
        return 100 * self.seconds() / (time.monotonic() - self.start[0])


class OthersClock:
    """What programs that are no part of the measuring take of the machine meanwhile."""

    def __init__(self):
        self.cores = len(os.sched_getaffinity(0))
        self.start = self.read()

    def read(self):
        ours = set(tree([os.getpid()]))
        ticks = {}
        for entry in os.listdir("/proc"):
            # The kernel's own threads work for everybody.
            if entry.isdigit() and int(entry) not in ours and (fields := stat(entry)) and fields[1] != "2":
                ticks[int(entry)] = sum(map(int, fields[11:15]))
        return time.monotonic(), ticks

    def share(self):
        """Per cent of all cores since the start."""
        now, ticks = self.read()
        begun, before = self.start
        # A process that has ended is in its parent's count; one that is new began at zero.
        spent = sum(ticks.values()) - sum(count for pid, count in before.items() if pid in ticks)
        gone = sum(count for pid, count in before.items() if pid not in ticks)
        return 100 * max(0, spent - gone) / TICKS / max(now - begun, 0.01) / self.cores


def memory(pids, what="rss"):
    """MiB of all of them: `rss`, or `pss`, where what several share counts once."""
    total = 0
    for pid in tree(pids):
        try:
            total += _kib(pid, what)
        except (OSError, StopIteration):
            continue
    return total / 1024


def _kib(pid, what):
    name, label = ("status", "VmRSS:") if what == "rss" else ("smaps_rollup", "Pss:")
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
