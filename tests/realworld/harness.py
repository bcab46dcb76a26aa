"""What every real-world suite needs: it starts, watches and ends the three programs as processes,
and reports what was checked.

Standard library only. A suite is a file with a `main(lab)` and the line
`harness.run(main)`; it can be run alone:

    python3 tests/realworld/openssh.py

Settings come from the environment, as `scripts/test` gives them:

    BIN_DIR       where the programs are   (target/dist)
    TOOLS_DIR     where quickstart and stream-load are   (BIN_DIR, or target/dist)
    VOLUME_MIB    how much the volume checks move  (32)
    REQUIRE_ALL   1: a missing tool is a failure, not a skip
"""

import contextlib
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
WORK = TARGET / "realworld"
BIN_DIR = pathlib.Path(os.environ.get("BIN_DIR", TARGET / "dist")).resolve()
TOOLS_DIR = pathlib.Path(os.environ.get("TOOLS_DIR", BIN_DIR)).resolve()
VOLUME_MIB = int(os.environ.get("VOLUME_MIB", "32"))
REQUIRE_ALL = os.environ.get("REQUIRE_ALL", "") not in ("", "0")

# Measured figures are compared with their limits only with the full volumes: on a busy machine they
# are not reliable.
FULL = VOLUME_MIB >= 1024
SKIPPED = 77  # exit code of a suite that could not run, as in automake
MIB = 1024 * 1024
DEVICE = "MyDevice"  # mixed case on purpose: device ids are case-sensitive

# A transfer slower than this is a defect too, even on a busy two-core machine.
SLOWEST_MIB_PER_SECOND = 2

# What must never be in a log, whatever the keys of this run are. The names alone may appear: a hint
# may mention `SharedAccessKey` without showing one.
SECRET_PATTERNS = [
    re.compile(rb"SharedAccessSignature\s+\w+="),
    re.compile(rb"SharedAccessKey=[A-Za-z0-9+/]"),
    re.compile(rb"\bsig=[A-Za-z0-9%+/]"),
    re.compile(rb"eyJ[A-Za-z0-9_-]{8,}"),
]


class Failure(Exception):
    """A check that failed, with one sentence about it."""


class Skip(Exception):
    """A requirement of this suite that is missing."""


class Impossible(Skip):
    """A requirement of this suite that is missing and cannot be installed: a skip also where a
    missing tool is a failure."""


def check(condition, message):
    if not condition:
        raise Failure(message)


def equal(seen, expected, what):
    check(seen == expected, f"{what}: expected {expected!r}, saw {seen!r}")


def need(*tools):
    """The first of the alternatives in each argument ('a|b') that is installed."""
    found = []
    for names in tools:
        path = next(filter(None, map(find_tool, names.split("|"))), None)
        if path is None:
            raise Skip(f"{names.replace('|', ' or ')} is not installed")
        found.append(path)
    return found[0] if len(found) == 1 else found


def find_tool(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def use_venv():
    """Runs the suite again with the Python that has the packages, if there is one."""
    python = WORK / "venv" / "bin" / "python"
    if python.exists() and pathlib.Path(sys.prefix).resolve() != python.parents[1].resolve():
        os.execv(python, [str(python), *sys.argv])


def wait_until(condition, timeout, what, pause=0.02):
    """The first true value of `condition()`; waits for a condition, not for a time."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {timeout:g} s")
        time.sleep(pause)


def transfer_timeout(mib):
    return 60 + mib / SLOWEST_MIB_PER_SECOND


def free_port():
    """A port below the range that outgoing connections take theirs from."""
    for _ in range(200):
        port = random.randint(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Failure("no free port found")


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(MIB):
            digest.update(piece)
    return digest.hexdigest()


def random_file(path, mib):
    with open(path, "wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
    return path


def clean_environment():
    """This process's environment without the variables that configure the programs."""
    ours = ("IOTHUB_", "STREAM_HUB_", "STREAMING_TARGET_", "REMOTE_HOST_", "REMOTE_PORT", "PROXY_PORT")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ours) and name not in ("DEVICE_ID", "LOCAL_PORT")
    }


class StopSignals:
    """Lets signals that stop this program raise SystemExit, so that `finally` cleans up."""

    def __init__(self):
        self.held = False
        self.arrived = None

    def install(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._arrive)

    def _arrive(self, number, frame):
        if not self.held:
            sys.exit(128 + number)
        self.arrived = number

    @contextlib.contextmanager
    def later(self):
        """A signal that arrives within the block raises at its end."""
        # Signal handlers run in the main thread: no other thread is interrupted.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.held = True
        try:
            yield
        finally:
            self.held = False
            number, self.arrived = self.arrived, None
            if number:
                sys.exit(128 + number)


STOP = StopSignals()


class Process:
    """One started program, in a process group of its own; its output in files."""

    def __init__(self, name, argv, folder, env=None, stdin=subprocess.DEVNULL, cwd=None):
        self.name = name
        self.stdout_path = folder / f"{name}.stdout"
        self.stderr_path = folder / f"{name}.stderr"
        with open(self.stdout_path, "wb") as out, open(self.stderr_path, "wb") as err:
            self.popen = subprocess.Popen(
                [str(word) for word in argv],
                stdin=stdin,
                stdout=out,
                stderr=err,
                env={**clean_environment(), **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self.popen.pid

    @property
    def stdout(self):
        return self.stdout_path.read_text(errors="replace")

    @property
    def stderr(self):
        return self.stderr_path.read_text(errors="replace")

    @property
    def output(self):
        return self.stdout + self.stderr

    def running(self):
        return self.popen.poll() is None

    def wait_for(self, pattern, timeout=20, pause=0.02):
        """The first match of the pattern in what the program has printed."""
        wanted = re.compile(pattern, re.MULTILINE)

        def seen():
            match = wanted.search(self.output)
            if not match and not self.running():
                match = wanted.search(self.output)
                check(
                    match, f"{self.name} ended with {self.popen.returncode} before it said {pattern!r}: {self.tail()}"
                )
            return match

        return wait_until(seen, timeout, f"{self.name} says {pattern!r}", pause)

    def wait(self, timeout=20):
        """The exit code."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} still runs after {timeout:g} s: {self.tail()}") from None

    def signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.popen.wait()

    def stop(self):
        """Ends the program in an orderly way, or by SIGKILL when that takes too long."""
        self.signal(signal.SIGTERM)
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            pass
        # Also for the leader's children, which may outlive it.
        self.kill()

    def open_files(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def resident_mib(self):
        with open(f"/proc/{self.pid}/status") as status:
            line = next(line for line in status if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def tail(self, lines=4):
        return " / ".join(self.output.strip().splitlines()[-lines:])


class Lab:
    """The environment of one suite: a folder, the programs it started, and its results."""

    def __init__(self, name):
        self.name = name
        self.logs = WORK / name
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(parents=True)
        # Keys live here and not in target/: the folder goes when the suite ends.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"realworld-{name}-"))
        self.processes = []
        self.ours = []
        self.secrets = set()
        self.counts = {}
        self.passed = 0
        self.failures = []
        self.skips = []
        self.missing = 0

    # What was checked

    @contextlib.contextmanager
    def step(self, title):
        """One check. A failure is reported, and the suite continues with the next."""
        started = time.monotonic()
        try:
            yield
        except Skip as reason:
            self.skips.append(f"{title}: {reason}")
            self.missing += not isinstance(reason, Impossible)
            print(f"  skip  {title}: {reason}", flush=True)
        except Exception as error:  # everything a check throws is its failure
            self.failures.append(title)
            print(f"  FAIL  {title}: {error or type(error).__name__}", flush=True)
            if not isinstance(error, Failure):
                traceback.print_exc(file=sys.stdout)
        else:
            self.passed += 1
            print(f"  ok    {title} ({time.monotonic() - started:.1f} s)", flush=True)

    # Processes

    def start(self, name, argv, **options):
        number = self.counts[name] = self.counts.get(name, 0) + 1
        # A stop between the start and the list would leave a program running.
        with STOP.later():
            process = Process(name if number == 1 else f"{name}-{number}", argv, self.logs, **options)
            self.processes.append(process)
        return process

    def start_ours(self, program, *arguments, name=None, log_level="trace", under=(), **options):
        """One of the three programs, at the most detailed log level by default; `under` is a
        command that runs it."""
        level = ["--log-level", log_level] if log_level else []
        process = self.start(name or program, [*under, binary(program), *arguments, *level], **options)
        self.ours.append(process)
        return process

    def run(self, argv, timeout=60, ok=True, **options):
        """A command from beginning to end; its result, with text."""
        try:
            result = subprocess.run(
                [str(word) for word in argv],
                stdin=options.pop("stdin", subprocess.DEVNULL if "input" not in options else None),
                capture_output=True,
                text=options.pop("text", True),
                timeout=timeout,
                **options,
            )
        except subprocess.TimeoutExpired as late:
            said = (late.stderr or b"")[-400:]
            raise Failure(f"{pathlib.Path(argv[0]).name} still ran after {timeout:g} s: {said!r}") from None
        if ok and result.returncode != 0:
            raise Failure(
                f"{pathlib.Path(argv[0]).name} ended with {result.returncode}: "
                f"{str(result.stderr).strip()[-600:]} {str(result.stdout).strip()[-300:]}"
            )
        return result

    # Secrets

    def secret_file(self, name, text):
        path = self.folder / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
        self.remember_secrets(text)
        return path

    def remember_secrets(self, connection_string):
        for key in re.findall(r"SharedAccessKey=([^;\s]+)", connection_string):
            self.secrets.add(key)

    def holds_secret(self, line):
        return any(secret.encode() in line for secret in self.secrets) or any(
            pattern.search(line) for pattern in SECRET_PATTERNS
        )

    def leaked_secrets(self):
        """Every line in our programs' logs that contains a secret."""
        places = []
        for process in self.ours:
            for path in (process.stdout_path, process.stderr_path):
                for number, line in enumerate(path.read_bytes().splitlines(), 1):
                    if self.holds_secret(line):
                        places.append(f"{path.name}:{number}")
        return places

    # The end

    def finish(self):
        for process in reversed(self.processes):
            if process.running():
                process.signal(signal.SIGTERM)
        for process in reversed(self.processes):
            process.stop()
        with self.step("no secret in any log at trace level"):
            places = self.leaked_secrets()
            check(not places, f"{len(places)} lines hold a secret, the first: {', '.join(places[:5])}")
        with self.step("no panic in any log"):
            panics = [p.name for p in self.ours if "panicked at" in p.stderr]
            check(not panics, f"panics in {', '.join(panics)}")
        if self.failures:
            self.show_logs()
        shutil.rmtree(self.folder, ignore_errors=True)

    def show_logs(self, lines=25):
        print(f"  logs are in {self.logs}; the last lines of each:")
        for path in sorted(self.logs.glob("*.std*")):
            text = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
            if text:
                print(f"  --- {path.name}")
                for line in text[-lines:]:
                    print(f"      {line[:300]}")


def binary(program):
    shipped = program in ("stream-hub", "device-proxy", "service-proxy")
    for folder in (BIN_DIR,) if shipped else (TOOLS_DIR, TARGET / "dist"):
        if (folder / program).exists():
            return folder / program
    raise Skip(f"{folder / program} is not built")


def output_of(program, *arguments, timeout=20):
    """A short run of one of the programs, whatever its exit code."""
    try:
        return subprocess.run(
            [str(binary(program)), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=clean_environment(),
        )
    except subprocess.TimeoutExpired as late:
        said = ((late.stdout or b"") + (late.stderr or b""))[-400:]
        raise Failure(f"{program} still ran after {timeout:g} s; it said {said!r}") from None


class Hub:
    """A stream-hub with its own data folder: on loopback or where `listen` says, and optionally
    under a command such as a network namespace's."""

    def __init__(self, lab, name="hub", hostname="localhost", https=None, mqtts=None, listen="127.0.0.1", under=()):
        self.lab = lab
        self.listen_address = listen
        self.under = list(under)
        self.name = name
        self.https = https or free_port()
        self.mqtts = mqtts or free_port()
        self.host = hostname
        self.data = lab.folder / f"{name}-data"
        self.process = None

    @property
    def ca(self):
        return self.data / "tls" / "ca.pem"

    @property
    def address(self):
        """As connection strings and tokens carry it."""
        return self.host if self.https == 443 else f"{self.host}:{self.https}"

    def start(self, under=(), pause=0.02, **options):
        """`pause` is the interval of the checks whether it is ready."""
        self.process = self.lab.start_ours(
            "stream-hub", "serve",
            "--data-dir", self.data,
            "--hostname", self.address,
            "--https", f"{self.listen_address}:{self.https}",
            "--mqtts", f"{self.listen_address}:{self.mqtts}",
            name=self.name, under=[*self.under, *under], **options,
        )  # fmt: skip
        self.process.wait_for(r"\bready\b", pause=pause)
        return self

    def cli(self, *arguments):
        result = output_of("stream-hub", *arguments, "--data-dir", self.data)
        check(result.returncode == 0, f"{' '.join(map(str, arguments))}: {result.stderr.strip()}")
        self.lab.remember_secrets(result.stdout)
        return result.stdout.strip()

    def create_device(self, device=DEVICE, *options):
        return self.cli("device", "create", device, *options)

    def service_string(self, policy="service"):
        return self.cli("policy", "connection-string", policy)

    # The proxies beside it. Secrets go by file, never on the command line.

    def device_proxy(self, connection_string, *arguments, name=None, ca=None, **options):
        file = self.lab.secret_file(f"device-{len(self.lab.processes)}", connection_string)
        return self.lab.start_ours(
            "device-proxy", *arguments,
            "--connection-string-file", file,
            "--ca-file", ca or self.ca,
            name=name, **options,
        )  # fmt: skip

    def service_options(self, policy="service"):
        file = self.lab.secret_file(f"service-{len(self.lab.processes)}", self.service_string(policy))
        return ["--connection-string-file", file, "--ca-file", self.ca]

    def listen(self, *mappings, device=DEVICE, name=None, arguments=(), **options):
        """A service-proxy with one port for each mapping, and the ports it chose."""
        process = self.lab.start_ours(
            "service-proxy", *self.service_options(), *arguments, "listen", device,
            *(f"0:{mapping}" if mapping else "0" for mapping in mappings),
            name=name, **options,
        )  # fmt: skip

        def ports():
            found = re.findall(r"127\.0\.0\.1:(\d+)", process.output)
            ours = [int(port) for port in dict.fromkeys(found) if int(port) not in (self.https, self.mqtts)]
            if len(ours) < len(mappings):
                check(process.running(), f"service-proxy ended: {process.tail()}")
                return None
            return ours[: len(mappings)]

        return process, wait_until(ports, 20, "service-proxy prints its listening addresses")

    def echo(self, *arguments, device=DEVICE, timeout=60, **options):
        """`service-proxy echo` from beginning to end, whatever its exit code."""
        process = self.lab.start_ours(
            "service-proxy", *self.service_options(), "echo", device, *arguments,
            name="echo", **options,
        )  # fmt: skip
        process.wait(timeout)
        return subprocess.CompletedProcess(process.popen.args, process.popen.returncode, process.stdout, process.stderr)


class TcpServer:
    """A target: each connection to it is given to `serve(socket)` in a thread."""

    def __init__(self, serve, host="127.0.0.1"):
        self.listener = socket.create_server((host, 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.serve = serve
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection):
        with connection, contextlib.suppress(OSError):
            self.serve(connection)

    def close(self):
        # close() alone does not wake a thread that waits in accept().
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def echo_back(connection):
    while data := connection.recv(65536):
        connection.sendall(data)


def receive_exactly(connection, size):
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(min(65536, size - len(data)))
        check(piece, f"the connection ended after {len(data)} of {size} bytes")
        data += piece
    return bytes(data)


def connect(port, timeout=40):
    """A connection to a local port. Its time-out exceeds the proxies' own, so that theirs apply."""
    return socket.create_connection(("127.0.0.1", port), timeout=timeout)


def echoes(port, payload=b"ping", timeout=40):
    with connect(port, timeout) as connection:
        connection.sendall(payload)
        return receive_exactly(connection, len(payload)) == payload


def json_of(text):
    try:
        return json.loads(text)
    except ValueError:
        raise Failure(f"not JSON: {text[:200]!r}") from None


def run(main):
    """Runs a suite and ends the program with its result."""
    name = pathlib.Path(sys.argv[0]).stem
    STOP.install()
    # Everything here is on loopback; no library may use a proxy for it.
    for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[variable]
    lab = Lab(name)
    skipped = None
    try:
        try:
            for program in ("stream-hub", "device-proxy", "service-proxy"):
                binary(program)
            main(lab)
        except Skip as reason:
            skipped = reason
        except Exception as error:  # what stops a suite is its failure
            lab.failures.append("the suite")
            print(f"  FAIL  the suite could not go on: {error or type(error).__name__}", flush=True)
            if not isinstance(error, Failure):
                traceback.print_exc(file=sys.stdout)
    finally:
        lab.finish()
    if skipped:
        print(f"{name}: could not run: {skipped}", flush=True)
        sys.exit(1 if REQUIRE_ALL and not isinstance(skipped, Impossible) else SKIPPED)
    for skip in lab.skips:
        print(f"  could not run {skip}")
    print(f"{name}: {lab.passed} checks held, {len(lab.failures)} did not, {len(lab.skips)} could not run", flush=True)
    sys.exit(1 if lab.failures or (lab.missing and REQUIRE_ALL) else 0)
