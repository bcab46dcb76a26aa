"""stunnel: two TLS legs through three processes; the middle one is the server of the first leg and
the client of the second."""

import subprocess

import harness
from chains import certificates
from chains.base import Chain

GLOBAL = """
foreground = yes
pid =
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
sslVersionMin = TLSv1.3
"""
SERVER = """
[{name}]
accept = 127.0.0.1:{port}
connect = {to}
cert = {folder}/cert.pem
key = {folder}/key.pem
"""
CLIENT = """
[{name}]
client = yes
accept = 127.0.0.1:{port}
connect = {to}
CAfile = {folder}/ca.pem
verifyChain = yes
checkHost = localhost
"""


class Stunnel(Chain):
    name = "stunnel"
    about = "three stunnel, two TLS legs"
    needs = ("stunnel4|stunnel", "openssl")
    install = "apt-get install stunnel4 openssl"

    @classmethod
    def versions(cls):
        words = [harness.need(cls.needs[0]), "-version"]
        text = subprocess.run(words, capture_output=True, text=True, timeout=20).stderr
        found = next((line for line in text.splitlines() if line.startswith("stunnel")), "?")
        return {"stunnel": found}

    def launch(self):
        certificates.make(self.folder)
        service, hub, join, device = (harness.free_port() for _ in range(4))
        self.hop("device", [(SERVER, device, self.target)])
        # The two services of the middle process are joined on loopback: stunnel has no other way.
        middle = [(CLIENT, join, f"127.0.0.1:{device}"), (SERVER, hub, f"127.0.0.1:{join}")]
        self.hop("hub", middle)
        self.hop("service", [(CLIENT, service, f"127.0.0.1:{hub}")])
        self.address = f"127.0.0.1:{service}"

    def hop(self, name, services):
        sections = [
            section.format(name=f"{name}-{port}", port=port, to=to, folder=self.folder)
            for section, port, to in services
        ]
        file = self.folder / f"{name}.conf"
        file.write_text(GLOBAL + "".join(sections))
        process = self.program(name, [harness.need(self.needs[0]), file])
        for _, port, _ in services:
            self.wait_for_listener(process, port)
