"""The programs for Windows, under Wine: hub and proxies, and device-proxy as a service."""

import contextlib
import json
import os
import pathlib
import re
import signal

import harness
from harness import DEVICE, ROOT, check, equal

# Debian's command warns on every call that 32-bit programs would not run.
WINE = "/usr/lib/wine/wine64"
READY_SECONDS = 120
SERVICE = "device-proxy"


class Wine:
    """A Windows of its own: a prefix of Wine, with its server, without a screen."""

    def __init__(self, lab, programs):
        self.lab, self.programs = lab, programs
        self.wine = WINE if os.path.exists(WINE) else harness.need("wine")
        self.prefix = lab.folder / "wine"
        self.prefix.mkdir()
        self.env = {
            "WINEPREFIX": str(self.prefix),
            # What is written to the event log, which Wine only prints, and the calls of icacls,
            # which Wine only notes.
            "WINEDEBUG": "-all,+eventlog,fixme+icacls",
            "WINEDLLOVERRIDES": "mscoree,mshtml=",
            "DISPLAY": "",
        }
        # It must outlive each program, and end with the suite; services are its children.
        self.server = lab.start("wineserver", [harness.need("wineserver"), "-f", "-p"], env=self.env)
        # The first program sets up the prefix and starts the services. (After wineboot there would
        # be two service managers.)
        self.boot = lab.start("wine-first", [self.wine, "cmd", "/c", "exit 0"], env=self.env)
        equal(self.boot.wait(READY_SECONDS), 0, "exit code of the first program")
        gcc = harness.need("x86_64-w64-mingw32-gcc")
        library = self.drive / "windows/system32/bcryptprimitives.dll"
        if not library.exists():
            source = ROOT / "tests/realworld/bcryptprimitives.c"
            lab.run([gcc, "-shared", "-O1", "-o", library, source, "-ladvapi32"])
        self.folder = self.drive / "device-streams"
        self.folder.mkdir()

    @property
    def drive(self):
        return self.prefix / "drive_c"

    def path(self, path):
        """As Windows programs name a file of the drive C:."""
        return "C:\\" + str(pathlib.Path(path).relative_to(self.drive)).replace("/", "\\")

    def argv(self, program, *arguments):
        binary = self.programs / f"{program}.exe"
        return [self.wine, binary, *arguments]

    def start(self, program, *arguments, name=None, log_level="trace", env=None):
        level = ["--log-level", log_level] if log_level else []
        argv = self.argv(program, *arguments, *level)
        process = self.lab.start(name or f"{program}-windows", argv, env={**self.env, **(env or {})}, cwd=self.folder)
        # Not its group: the first program starts Wine's services, which are in its group.
        process.signal = lambda number: end(process.pid, number)
        self.lab.ours.append(process)
        return process

    def close(self):
        self.lab.run([harness.need("wineserver"), "-k"], ok=False, env={**os.environ, **self.env})

    def run(self, program, *arguments, ok=True, env=None, **options):
        """From beginning to end."""
        argv = program if isinstance(program, list) else self.argv(program, *arguments)
        environment = {**harness.clean_environment(), **self.env, **(env or {})}
        return self.lab.run(argv, ok=ok, env=environment, cwd=self.folder, **options)

    def system(self, *words, **options):
        """A program of Windows."""
        return self.run([self.wine, *words], **options)


def end(pid, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class WindowsHub(harness.Hub):
    """A hub whose data is on the drive C: of Wine."""

    def __init__(self, wine):
        super().__init__(wine.lab, name="hub-windows")
        self.wine = wine
        self.data = wine.folder / "hub-data"

    def start(self):
        arguments = ["serve", "--data-dir", self.wine.path(self.data), "--hostname", self.address]
        addresses = ["--https", f"127.0.0.1:{self.https}", "--mqtts", f"127.0.0.1:{self.mqtts}"]
        self.process = self.wine.start("stream-hub", *arguments, *addresses, name=self.name)
        self.process.wait_for(r"\bready\b", timeout=READY_SECONDS)
        return self

    def cli(self, *arguments):
        result = self.wine.run("stream-hub", *arguments, "--data-dir", self.wine.path(self.data))
        self.lab.remember_secrets(result.stdout)
        return result.stdout.strip()

    def options(self, file):
        return ["--connection-string-file", self.wine.path(file), "--ca-file", self.wine.path(self.ca)]

    def echo(self, file, *arguments, device=DEVICE):
        return self.wine.run("service-proxy", *self.options(file), "echo", device, *arguments, ok=False)


def main(lab, programs, survives):
    """`survives(port, hub, device)` checks a connection across a kill of the hub."""
    wine = Wine(lab, programs)
    try:
        checks(lab, wine, survives)
    finally:
        wine.close()


def checks(lab, wine, survives):
    with lab.step("the three programs start"):
        for program in ("device-proxy", "service-proxy", "stream-hub"):
            says = wine.run(program, "--version").stdout
            check(says.startswith(f"{program} "), f"{program} says {says!r}")

    hub = WindowsHub(wine).start()
    string, operator = hub.create_device(), hub.service_string()
    device_file, service_file = wine.folder / "device.cs", wine.folder / "service.cs"
    # As `>` of Windows PowerShell 5.1 writes it, and as an editor does.
    device_file.write_bytes(b"\xff\xfe" + f"{string}\r\n".encode("utf-16-le"))
    service_file.write_bytes(b"\xef\xbb\xbf" + f"{operator}\r\n".encode())
    echo = harness.TcpServer(harness.echo_back)

    with lab.step("connection string files as PowerShell writes them: UTF-16 and UTF-8, with marks and CRLF"):
        target = f"tcp=127.0.0.1:{echo.port}"
        device = wine.start("device-proxy", *hub.options(device_file), "--echo", "--target", target)
        device.wait_for("connected; streams reach", timeout=60)
        result = hub.echo(service_file, "--count", "3", "--interval", "0.1", "--size", "1000")
        equal(result.returncode, 0, f"exit code ({result.stderr.strip()[-300:]})")

    service = wine.start("service-proxy", *hub.options(service_file), "listen", DEVICE, "0:tcp")
    port = int(service.wait_for(r"127\.0\.0\.1:(\d+) -> ")[1])
    with lab.step("a stream to a TCP target carries 8 MiB there and back"):
        check(harness.echoes(port, os.urandom(8 * harness.MIB)), "other bytes came back")

    with lab.step("status shows what runs, each program by a pipe of its own"):
        with harness.connect(port) as connection:
            connection.sendall(b"ping")
            harness.receive_exactly(connection, 4)
            shows(wine, "device-proxy", rf"as {DEVICE}, connected for ", target="tcp")
            shows(wine, "service-proxy", rf"127\.0\.0\.1:{port} -> {DEVICE} \(tcp\)", target="tcp")
        equal(len(list(status_files(wine))), 2, "files that lead to pipes")

    with lab.step("status --socket asks one pipe of this machine, and no other file"):
        name = r"\\.\pipe\device-streams-test"
        other = wine.start(
            "service-proxy", *hub.options(service_file), "listen", DEVICE, "0:tcp", "--status-socket", name,
            name="service-proxy-named",
        )
        other.wait_for(r"127\.0\.0\.1:\d+ -> ")
        asked = json.loads(wine.run("service-proxy", "status", "--json", "--socket", name).stdout)
        equal([it["program"] for it in asked], ["service-proxy"], "programs")
        other.signal(signal.SIGINT)
        equal(other.wait(20), 0, "exit code")
        for wrong in (name, r"\\server\pipe\x"):
            result = wine.run("service-proxy", "status", "--socket", wrong, ok=False)
            equal(result.returncode, 1, "exit code")
            check("no answer from " in result.stderr, f"it says {result.stderr!r}")

    with lab.step("a connection goes on after the hub was killed"):
        survives(port, hub, device)

    configuration_file(lab, wine, hub, device_file)

    with lab.step("a login writes its files below %APPDATA%, and no option is needed then"):
        code = hub.cli("enrol", "--operator").splitlines()[-1]
        said = wine.run("service-proxy", "login", code).stdout
        check(r"AppData\Roaming\device-streams\service-proxy.toml" in said, f"it says {said!r}")
        devices = wine.run("service-proxy", "devices").stdout
        check(re.search(rf"^{DEVICE}\s+yes\s", devices, re.MULTILINE), f"the devices are {devices!r}")

    with lab.step("without a target, it is RDP"):
        result = wine.run("device-proxy", "--check-config", *hub.options(device_file), ok=False)
        equal(result.returncode, 0, f"exit code ({result.stderr.strip()})")

    with lab.step("Ctrl-C ends each program, with exit code 0"):
        # Wine makes a Ctrl-C event of it.
        for process in (service, device):
            process.signal(signal.SIGINT)
            equal(process.wait(20), 0, f"exit code of {process.name} ({process.tail()})")
        equal(list(status_files(wine)), [], "files that lead to pipes")
        result = wine.run("service-proxy", "status", ok=False)
        equal(result.returncode, 1, "exit code")
        check("no service-proxy of this user runs here" in result.stderr, f"it says {result.stderr!r}")

    as_a_service(lab, wine, hub)

    with lab.step("Ctrl-C ends the hub, with exit code 0; while it waits for a stream, a second one at once"):
        hub.process.signal(signal.SIGINT)
        equal(hub.process.wait(20), 0, f"exit code ({hub.process.tail()})")
        hub.start()
        device = wine.start("device-proxy", *hub.options(device_file), "--echo")
        device.wait_for("connected; streams reach", timeout=60)
        service = wine.start("service-proxy", *hub.options(service_file), "listen", DEVICE, "0:echo")
        port = int(service.wait_for(r"127\.0\.0\.1:(\d+) -> ")[1])
        with harness.connect(port) as connection:
            connection.sendall(b"ping")
            harness.receive_exactly(connection, 4)
            hub.process.signal(signal.SIGINT)
            hub.process.wait_for(r"\bstopping\b")
            hub.process.signal(signal.SIGINT)
            equal(hub.process.wait(20), 130, f"exit code ({hub.process.tail()})")
    echo.close()


def status_files(wine):
    """What leads to the pipes of running programs."""
    return wine.drive.glob("users/*/AppData/Local/device-streams/status/*")


def shows(wine, program, line, target=None):
    """One program of this name runs, and its status has this line, in the table and in JSON its
    open session."""
    text = wine.run(program, "status").stdout
    check(re.search(line, text), f"{program} status says {text!r}")
    [document] = json.loads(wine.run(program, "status", "--json").stdout)
    equal(document["program"], program, "program")
    if target:
        sessions = [it for it in document["sessions"] if it["target"] == target]
        equal([(it["state"], it["connections"]) for it in sessions], [("up", 1)], "sessions")


def configuration_file(lab, wine, hub, device_file):
    text = (
        f"connection-string-file = '{wine.path(device_file)}'\r\nca-file = '{wine.path(hub.ca)}'\r\n"
        "echo = true\r\n"
    )
    file = wine.folder / "device-proxy.toml"
    check_it = ("device-proxy", "--check-config", "--config", wine.path(file))
    with lab.step("a configuration file with CRLF, also as PowerShell writes it"):
        for bytes_ in (text.encode(), b"\xef\xbb\xbf" + text.encode(), b"\xff\xfe" + text.encode("utf-16-le")):
            file.write_bytes(bytes_)
            result = wine.run(*check_it, ok=False)
            equal(result.returncode, 0, f"exit code ({result.stderr.strip()})")
    with lab.step("a wrong key in it is an error with its line, and exit code 2"):
        file.write_text(text + "ehco = true\r\n")
        result = wine.run(*check_it, ok=False)
        equal(result.returncode, 2, f"exit code ({result.stderr.strip()})")
        check("line 4" in result.stderr, f"it says {result.stderr!r}")


def as_a_service(lab, wine, hub):
    """Installed, started by an enrolment, stopped and removed. Wine's event log is its debug output,
    which is the server's."""
    code = hub.cli("enrol", "--device", "Served").splitlines()[-1]
    folder = wine.drive / "ProgramData/device-streams"

    def state():
        result = wine.system("sc", "query", SERVICE, ok=False)
        found = re.search(r"STATE\s+: \d+\s+(\w+)", result.stdout)
        return found[1] if found else None

    with lab.step("service install: it is there, and a key that others have put into its folder is not"):
        folder.mkdir()
        (folder / "device.key").write_text("planted")
        said = wine.run("device-proxy", "service", "install").stdout
        check("installed the service device-proxy" in said, f"it says {said!r}")
        equal(state(), "STOPPED", "state")
        equal(list(folder.iterdir()), [], "files")

    with lab.step("without a configuration it does not start, and the command says so"):
        result = wine.run("device-proxy", "service", "start", ok=False)
        equal(result.returncode, 1, "exit code")
        check("ended with code 2" in result.stderr, f"it says {result.stderr!r}")

    with lab.step("an enrolment writes its files there, RDP as its target, and starts the service"):
        result = wine.run("device-proxy", "enrol", code, timeout=120)
        check("the service device-proxy was started" in result.stdout, f"it says {result.stdout!r}")
        closed = r'icacls\.exe" "C:\\\\ProgramData\\\\device-streams" "/inheritance:r" "/grant:r" "\*S-1-5-18:'
        check(re.search(closed, result.stderr), f"the folder was not closed: {result.stderr}")
        text = (folder / "device-proxy.toml").read_text()
        check('"rdp=localhost:3389"' in text, f"the configuration is {text!r}")
        equal(state(), "RUNNING", "state")

    with lab.step("a stream reaches the service"):
        service_file = wine.folder / "service.cs"
        result = hub.echo(service_file, "--count", "2", "--interval", "0.1", device="Served")
        equal(result.returncode, 0, f"exit code ({result.stderr.strip()[-300:]})")

    with lab.step("status shows the service"):
        shows(wine, "device-proxy", "as Served, connected for ")

    with lab.step("service reload has it read its file again"):
        file = folder / "device-proxy.toml"
        file.write_text(file.read_text() + "max-streams = 7\n")
        wine.run("device-proxy", "service", "reload")
        changed = re.compile(r"ReportEventW L.policy changed by .*at most 7 streams")
        harness.wait_until(lambda: changed.search(wine.boot.output), 20, "the event log says what changed")

    with lab.step("service stop ends it as Ctrl-C does, and service start starts it again"):
        for _ in range(2):
            wine.run("device-proxy", "service", "stop")
            equal(state(), "STOPPED", "state")
            wine.run("device-proxy", "service", "start")
            equal(state(), "RUNNING", "state")
        wine.system("sc", "stop", SERVICE)
        harness.wait_until(lambda: state() == "STOPPED", 20, "sc stop stops it")
        result = wine.system("sc", "query", SERVICE)
        check(re.search(r"WIN32_EXIT_CODE\s+: 0 ", result.stdout), f"sc says {result.stdout}")

    with lab.step("its log is in the event log, with its levels"):
        # Wine prints it where its services were started.
        logged = wine.boot.output
        check(re.search(r'err:eventlog:ReportEventW L"error: cannot read the configuration', logged), "no failed start")
        check(re.search(r'trace:eventlog:ReportEventW L"connected; streams reach', logged), "no start")

    with lab.step("service uninstall removes it, and a start says that it is not there"):
        wine.run("device-proxy", "service", "uninstall")
        result = wine.run("device-proxy", "service", "start", ok=False)
        equal(result.returncode, 1, "exit code")
        check("service install` installs it" in result.stderr, f"it says {result.stderr!r}")
        check((folder / "device.key").exists(), "its files are gone")

    with lab.step("service run by hand is refused"):
        result = wine.run("device-proxy", "service", "run", ok=False)
        check(result.returncode == 1 and "for the service manager" in result.stderr, f"it says {result.stderr!r}")
