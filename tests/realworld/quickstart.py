#!/usr/bin/env python3
"""The quickstart, as the README's first command runs it: its own ports, and an ssh
session by the very line it prints. In a network namespace, where those ports are free.
"""

import re
import shlex
import signal
import socket

import harness
import namespace
from harness import DEVICE, check, equal
from openssh import Sshd

PORT = 2222


def main(lab):
    sshd, ssh, keygen = harness.need("sshd", "ssh", "ssh-keygen")

    with lab.step("without an SSH server it says so, offers the echo target, and the echo test runs"):
        quickstart = start(lab)
        quickstart.wait_for(r"(?i)echo", 40)
        harness.wait_until(lambda: listening(PORT), 40, f"port {PORT} is open")
        check(re.search(r"\b22\b", quickstart.output), f"no word of port 22: {quickstart.tail(12)}")
        quickstart.wait_for(r"\d+(\.\d+)?\s*(ms|µs|us)\b", 40)
        check(harness.echoes(PORT), "the port does not echo")
        ends_cleanly(quickstart)

    server = Sshd(lab, sshd, keygen, port=22)
    with lab.step("with one it prints the line to type, and the line works"):
        quickstart = start(lab)
        line = quickstart.wait_for(rf"\bssh .*-p ?{PORT}.*$", 40)[0]
        check(f"HostKeyAlias={DEVICE}" in line, f"no HostKeyAlias in {line!r}")
        # What a person has in their home folder is given by options here.
        words = shlex.split(line.strip().strip("`"))
        result = lab.run([ssh, *server.client_options, *words[1:], "echo by the line"])
        equal(result.stdout, "by the line\n", "output of ssh")
        for file in (quickstart.stdout_path, quickstart.stderr_path):
            text = file.read_text()
            check(not re.search(r"SharedAccessKey=\S|SharedAccessSignature sr", text), f"a secret in {file.name}")

    with lab.step("Ctrl-C ends it, also with a session open"):
        with harness.connect(PORT):
            ends_cleanly(quickstart)

    with lab.step("the next start has the same keys"):
        certificates = {path: path.read_bytes() for path in lab.folder.rglob("ca.pem")}
        check(certificates, "no ca.pem in the data folder")
        quickstart = start(lab)
        quickstart.wait_for(rf"\bssh .*-p ?{PORT}.*$", 40)
        for path, earlier in certificates.items():
            check(path.read_bytes() == earlier, f"{path.name} was made anew")
        ends_cleanly(quickstart)


def start(lab):
    process = lab.start("quickstart", [harness.binary("quickstart")], cwd=lab.folder)
    lab.ours.append(process)
    return process


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
