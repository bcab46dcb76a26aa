"""The run: every figure of every chain in turn, round by round, so that a drift of the machine
affects all of them."""

import time
from dataclasses import dataclass

import harness
from harness import Failure
from measuring import line, load, processes
from measuring.load import MIB

GIB = 1024 * MIB
# Per cent of the machine that other programs may take during a measurement. If they take more, it
# is repeated, at most twice.
DISTURBED = 5


@dataclass
class Plan:
    """The amounts of a run."""

    kinds: list
    memory: str
    quick: bool = False
    size: int | None = None
    rounds: int | None = None

    def __post_init__(self):
        quick = self.quick
        self.size = self.size or (64 * MIB if quick else GIB)
        self.rounds = self.rounds or (1 if quick else 5)
        self.pings = 300 if quick else 10_000
        self.open_count = 20 if quick else 300
        self.opens_seconds = 0.5 if quick else 3
        self.held = 100 if quick else 1000
        self.idle_seconds = 1 if quick else 15
        self.tries = 1 if quick else 3

    def to_json(self):
        return {
            "rounds": self.rounds,
            "bytes": self.size,
            "pings": self.pings,
            "opens": self.open_count,
            "opens_seconds": self.opens_seconds,
            "idle_connections": self.held,
            "idle_seconds": self.idle_seconds,
            "memory": self.memory,
        }

    def __str__(self):
        return (
            f"{self.rounds} rounds, {self.size / MIB:g} MiB a bulk run, "
            f"memory is {'VmRSS' if self.memory == 'rss' else 'Pss'}, summed"
        )


class Runner:
    """Starts the chains, measures them, and stops them."""

    def __init__(self, lab, plan, kinds_of_chain, results):
        self.lab, self.plan, self.results = lab, plan, results
        self.daemon = load.Daemon(lab)
        self.chains = [kind(lab, self.daemon) for kind in kinds_of_chain]
        self.broken = set()

    def run(self):
        if "line" in self.plan.kinds:
            self.line()
        measures = [measure for kind, measure in self.measures() if kind in self.plan.kinds]
        # Memory is measured with newly started programs.
        if measures or "idle" in self.plan.kinds:
            for chain in self.chains:
                self.attempt(chain, "start", self.start)
        for number in range(1, self.plan.rounds + 1):
            print(f"round {number} of {self.plan.rounds}", flush=True)
            self.idle(number)
            for measure in measures:
                for chain in self.chains:
                    self.attempt(chain, measure.__name__, measure)
        for chain in self.chains:
            chain.stop()
        if "memory" in self.plan.kinds:
            for number in range(1, self.plan.rounds + 1):
                print(f"memory, round {number} of {self.plan.rounds}", flush=True)
                for chain in self.chains:
                    self.attempt(chain, "memory", self.memory)

    def measures(self):
        for connections in (1, 8):
            for way in ("up", "down"):
                yield "bulk", self.bulk(way, connections)
        for size in (1, 64):
            yield "ping", self.ping(size)
        yield "open", self.open
        yield "opens", self.opens

    def attempt(self, chain, what, measure):
        """One measurement of one chain. A chain that fails is skipped from then on."""
        if chain.name in self.broken:
            return
        try:
            figures, others = self.undisturbed(measure, chain)
            if figures and others > DISTURBED:
                self.results.disturbed.append(f"{chain.name}: {what}: {others:.0f} %")
            self.results.add(chain.name, **figures)
        except (Failure, OSError) as error:
            print(f"  {chain.name}: {what}: {error}", flush=True)
            self.results.fail(chain.name, f"{what}: {error}")
            self.broken.add(chain.name)
            chain.stop()

    def undisturbed(self, measure, chain):
        """The figures of the attempt that other programs disturbed least, and how much they did."""
        tries = []
        while True:
            clock = processes.OthersClock()
            figures = measure(chain) or {}
            tries.append((clock.share(), figures))
            if not figures or tries[-1][0] <= DISTURBED or len(tries) == self.plan.tries:
                others, figures = min(tries, key=lambda seen: seen[0])
                return figures, others

    def start(self, chain):
        chain.start()

        deadline = time.monotonic() + 30
        while True:
            try:
                chain.echo()
                return
            except Failure:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    # The figures

    def bulk(self, way, connections):
        def bulk(chain):
            chain.echo()
            tunnel = processes.CpuClock(chain.pids)
            daemon = processes.CpuClock([self.daemon.process.pid])
            words = ("--direction", way, "--connections", connections, "--bytes", self.plan.size)
            seen = chain.run("bulk", *words)
            gib = seen["bytes"] / GIB
            suffix = f"{way}_{connections}"
            cost = {f"load_cpu_{suffix}": (seen["load_cpu"] + daemon.seconds()) / gib}
            if chain.pids:
                cost[f"cpu_{suffix}"] = tunnel.seconds() / gib
            return {f"bulk_{suffix}": seen["mib_per_second"]} | cost

        bulk.__name__ = f"bulk {way} ×{connections}"
        return bulk

    def ping(self, size):
        def ping(chain):
            chain.echo()
            seen = chain.run("ping", "--size", size, "--count", self.plan.pings)
            return {f"ping_{size}_p50": seen["p50_us"], f"ping_{size}_p99": seen["p99_us"]}

        ping.__name__ = f"ping of {size}"
        return ping

    def open(self, chain):
        chain.echo()
        seen = chain.run("open", "--count", self.plan.open_count)
        chain.settle()
        return {"open_p50": seen["p50_us"], "open_p99": seen["p99_us"]}

    def opens(self, chain):
        chain.echo()
        clock = processes.CpuClock(chain.pids)
        seen = chain.run("opens", "--concurrency", 32, "--seconds", self.plan.opens_seconds)
        # The cost includes the ends of the connections.
        chain.settle()
        figures = {"opens": seen["per_second"], "opens_errors": seen["errors"]}
        if chain.pids:
            figures["opens_cpu"] = clock.seconds() / seen["count"] * 1000
        if seen["errors"]:
            failed = f"{seen['errors']} opens failed, the first: {seen['first_error']}"
            print(f"  {chain.name}: {failed}", flush=True)
        return figures

    def idle(self, number):
        """Idle CPU of all chains at once."""
        chains = [chain for chain in self.chains if chain.name not in self.broken and chain.pids]
        if "idle" not in self.plan.kinds or not chains:
            return
        for chain in chains:
            chain.settle()
        time.sleep(0.5 if self.plan.quick else 6)
        clocks = [(chain, processes.CpuClock(chain.pids)) for chain in chains]
        time.sleep(self.plan.idle_seconds)
        for chain, clock in clocks:
            self.results.add(chain.name, idle_cpu=clock.share())

    def line(self):
        """A session on a shared line: once, since it takes three minutes."""
        if not any(chain.name == "session" for chain in self.chains):
            return
        reason = line.missing()
        if reason:
            print(f"no figures of a shared line: {reason}", flush=True)
            return
        print("a shared line", flush=True)
        try:
            self.results.add("session", **line.figures(self.lab, self.plan.quick))
        except (Failure, OSError) as error:
            print(f"  session: line: {error}", flush=True)
            self.results.fail("session", f"line: {error}")

    def memory(self, chain):
        """Memory of newly started programs."""
        self.start(chain)
        try:
            if not chain.pids:
                return {}
            fresh = self.look(chain)
            words = ("hold", "--to", chain.address, "--connections", str(self.plan.held))
            with load.held(self.lab, f"held-{chain.name}", *words):
                time.sleep(1)
                held = self.look(chain)
        finally:
            chain.stop()
        self.start(chain)
        try:
            for way in ("up", "down"):
                chain.run("bulk", "--direction", way, "--connections", 8, "--bytes", self.plan.size)
            time.sleep(1)
            bulk = self.look(chain)
        finally:
            chain.stop()
        per_connection = (held - fresh) * 1024 / self.plan.held
        return {"memory_fresh": fresh, "memory_idle": per_connection, "memory_bulk": bulk}

    def look(self, chain):
        return processes.memory(chain.pids, self.plan.memory)
