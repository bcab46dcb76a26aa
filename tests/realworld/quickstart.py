#!/usr/bin/env python3
"""The quickstart, as the README's first command runs it: its own ports, and an ssh
session by the very line it prints. In a network namespace, where those ports are free.
"""

import contextlib
import getpass
import shlex
import signal
import socket

import harness
import namespace
from harness import DEVICE, check, equal
from openssh import Sshd

PORT = 2222
LINE = rf"\bssh .*-p ?{PORT}.*$"


def main(lab):
    sshd, ssh, keygen = harness.need("sshd", "ssh", "ssh-keygen")

    with lab.step("without an SSH server it says so, offers the echo target, and the echo test runs"):
        with started(lab) as quickstart:
            quickstart.wait_for(r"Nothing listens on localhost:22\b", 40)
            quickstart.wait_for(r"\d+(\.\d+)?\s*(ms|µs|us)\b", 40)
            check(harness.echoes(PORT), "the port does not echo")
            ends_cleanly(quickstart)

    server = Sshd(lab, sshd, keygen, port=22)
    with lab.step("with one it prints the line to type, and the line works"):
        with started(lab) as quickstart:
            line = quickstart.wait_for(LINE, 40)[0]
            check(f"HostKeyAlias={DEVICE}" in line, f"no HostKeyAlias in {line!r}")
            # Options replace what a user would have in the home folder.
            words = shlex.split(line.strip().strip("`"))
            result = lab.run([ssh, *server.client_options, *words[1:], "echo by the line"])
            equal(result.stdout, "by the line\n", "output of ssh")
            # With a session open.
            with harness.connect(PORT):
                ends_cleanly(quickstart)

    with lab.step("the next start has the same keys"):
        certificates = {path: path.read_bytes() for path in lab.folder.rglob("ca.pem")}
        check(certificates, "no ca.pem in the data folder")
        with started(lab) as quickstart:
            quickstart.wait_for(LINE, 40)
            for path, earlier in certificates.items():
                check(path.read_bytes() == earlier, f"{path.name} was made anew")
            ends_cleanly(quickstart)

    with lab.step("another device, port and target"):
        echo, port = harness.TcpServer(harness.echo_back), harness.free_port()
        arguments = ["--device", "Other", "--port", port, "--target", f"127.0.0.1:{echo.port}"]
        with started(lab, *arguments) as quickstart:
            harness.wait_until(lambda: listening(port), 40, f"port {port} is open")
            check(harness.echoes(port), "the port does not lead to the target")
            ends_cleanly(quickstart)


@contextlib.contextmanager
def started(lab, *arguments):
    process = lab.start_ours("quickstart", *arguments, cwd=lab.folder, env={"USER": getpass.getuser()})
    try:
        yield process
    finally:
        process.stop()


def ends_cleanly(process):
    process.signal(signal.SIGINT)
    code = process.wait(15)
    check(code in (0, 130), f"it ended with {code}: {process.tail()}")
    check(not listening(PORT), f"port {PORT} is still open")


def listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    namespace.run(main)
