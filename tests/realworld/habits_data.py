"""Habits of habits.py that are no terminals: Docker's client, and a pool of PostgreSQL connections."""

import hashlib
import itertools
import os
import pathlib
import shutil
import subprocess
import tarfile
import threading

import harness
from habits_world import BACK_SECONDS, FILE_MIB, NAME, Habit, Transfer, size_of
from harness import check, equal

POOL = 8
FURTHER_TRANSACTIONS = 25
DAEMON_SECONDS = 60


# --- Docker


class Daemon:
    """A dockerd without a network, shared by the habits that need one."""

    lock = threading.Lock()
    only = None

    @classmethod
    def of(cls, ground):
        with cls.lock:
            if cls.only is None:
                cls.only = cls(ground)
            return cls.only

    def __init__(self, ground):
        self.lab = ground.lab
        self.client, daemon = harness.need("docker", "dockerd")
        # Paths of sockets below it have a limit of some 100 bytes.
        folder = ground.lab.folder / "d"
        folder.mkdir()
        self.host = f"unix://{ground.docker_socket}"
        process = ground.lab.start(
            "dockerd",
            [daemon, "--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile", folder / "pid",
             "--host", self.host, "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"],
        )  # fmt: skip
        try:
            process.wait_for("Daemon has completed initialization", DAEMON_SECONDS)
        except harness.Failure as error:
            raise harness.Impossible(f"no dockerd runs here: {error}") from None
        self.archive = folder / "root.tar"
        big = harness.random_file(folder / "big", FILE_MIB)
        self.digest = harness.sha256(big)
        with tarfile.open(self.archive, "w") as tar:
            tar.add(big, "big")

    def run(self, *words, host=None, **options):
        return self.lab.run([self.client, "-H", host or self.host, *words], **options)


class DockerOverSsh(Transfer):
    title = "docker -H ssh://: an image imported through it is the same"

    def start(self):
        self.daemon = Daemon.of(self.ground)
        self.expected = size_of(self.daemon.archive)
        self.host = f"ssh://{NAME}"
        with open(self.daemon.archive, "rb") as archive:
            self.process = self.ground.start(
                "docker-ssh", self.daemon.client, "-H", self.host, "import", "-", "habit:ssh", stdin=archive
            )

    def size(self):
        """How far it has read its standard input."""
        info = pathlib.Path(f"/proc/{self.process.pid}/fdinfo/0").read_text()
        return int(info.split()[1])

    def finish(self):
        self.check_exit()
        docker = [self.daemon.client, "-H", self.host]
        self.ground.run(*docker, "create", "--name", "over-ssh", "habit:ssh", "/none")
        copied = self.ground.run(*docker, "cp", "over-ssh:/big", "-", text=False)
        equal(digest_of_only_file(copied.stdout), self.daemon.digest, "SHA-256 of the file in the image")


class DockerSocket(Transfer):
    title = "docker -H unix://: a file copied from a container through the socket is the same"

    def start(self):
        self.daemon = Daemon.of(self.ground)
        with open(self.daemon.archive, "rb") as archive:
            self.daemon.run("import", "-", "habit:socket", stdin=archive)
        self.daemon.run("create", "--name", "by-socket", "habit:socket", "/none")
        host = f"unix://{self.ground.near_docker}"
        self.process = self.ground.start("docker-unix", self.daemon.client, "-H", host, "cp", "by-socket:/big", "-")

    def size(self):
        return size_of(self.process.stdout_path)

    def finish(self):
        self.check_exit()
        copied = self.process.stdout_path.read_bytes()
        self.process.stdout_path.unlink()
        self.process.stdout_path.touch()
        equal(digest_of_only_file(copied), self.daemon.digest, "SHA-256 of the file")


def digest_of_only_file(archive):
    result = subprocess.run(["tar", "-xO"], input=archive, capture_output=True, check=True)
    return hashlib.sha256(result.stdout).hexdigest()


# --- PostgreSQL


class Postgres(Habit):
    title = f"psql with a pool of {POOL} connections: no error, every transaction counted once"

    def start(self):
        try:
            import psycopg_pool
        except ImportError:
            raise harness.Skip("psycopg is not installed (from PyPI, see requirements.txt)") from None
        self.psql, setpriv = harness.need("psql", "setpriv")
        self.serve(setpriv)
        self.address = f"host={self.ground.sockets} user=postgres dbname=postgres"
        self.query("create table done (worker int, number int, primary key (worker, number))")
        self.query("create table account (total int)")
        self.query("insert into account values (0)")
        self.stop = threading.Event()
        self.confirmed = [0] * POOL
        self.backends = [set() for _ in range(POOL)]
        self.errors = []
        self.pool = psycopg_pool.ConnectionPool(self.address, min_size=POOL, max_size=POOL, open=True, timeout=60)
        self.pool.wait(60)
        self.workers = [threading.Thread(target=self.work, args=(worker,), daemon=True) for worker in range(POOL)]
        for worker in self.workers:
            worker.start()

    def serve(self, setpriv):
        folder = self.lab.folder / "postgres"
        programs = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not programs:
            raise harness.Skip("postgresql is not installed")
        folder.mkdir()
        shutil.chown(folder, "postgres", "postgres")
        # It refuses to run as root, and has to find its way to its folder.
        os.chmod(self.lab.folder, 0o711)
        as_postgres = [setpriv, "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        data = folder / "data"
        self.lab.run([*as_postgres, programs[-1], "-D", data, "--auth=trust", "--no-sync"], cwd="/")
        settings = {
            "listen_addresses": "127.0.0.1", "port": self.ground.postgres, "unix_socket_directories": folder, "fsync": "off",
        }  # fmt: skip
        options = itertools.chain.from_iterable(("-c", f"{name}={value}") for name, value in settings.items())
        self.process = self.ground.start(
            "postgres", *as_postgres, programs[-1].with_name("postgres"), "-D", data, *options, at_device=True, cwd="/"
        )
        self.process.wait_for("ready to accept connections", 30)

    def query(self, statement):
        """By psql through the tunnel; its output."""
        return self.lab.run([self.psql, "-X", "-q", "-A", "-t", self.address, "-c", statement]).stdout.strip()

    def work(self, worker):
        try:
            while not self.stop.is_set():
                number = self.confirmed[worker]
                with self.pool.connection() as connection:
                    connection.execute("update account set total = total + 1")
                    connection.execute("insert into done values (%s, %s)", (worker, number))
                    self.backends[worker].add(connection.info.backend_pid)
                self.confirmed[worker] += 1
        except Exception as error:  # reported where it is looked for
            self.errors.append(error)

    def in_the_middle(self):
        check(not self.errors, f"a worker failed: {self.errors[:1]}")
        return min(self.confirmed) >= FURTHER_TRANSACTIONS

    def further(self, when):
        before = list(self.confirmed)

        def done():
            check(not self.errors, f"a worker failed: {self.errors[:1]}")
            return all(now >= then + FURTHER_TRANSACTIONS for now, then in zip(self.confirmed, before))

        harness.wait_until(done, BACK_SECONDS, f"{FURTHER_TRANSACTIONS} more transactions of each worker {when}")

    def moves_again(self):
        self.further("after the hub's return")

    def finish(self):
        self.further("after both faults")
        self.stop.set()
        for worker in self.workers:
            worker.join(20)
        check(not self.errors, f"a worker failed: {self.errors[:1]}")
        equal(len(set().union(*self.backends)), POOL, "connections that the pool has used")
        total = sum(self.confirmed)
        equal(self.query("select count(*) from done"), str(total), "rows in the table, as psql sees them")
        equal(self.query("select total from account"), str(total), "transactions counted")
        print(f"        {total} transactions")

    def close(self):
        self.stop.set()
        self.pool.close()
