"""Common tunnels: bore, without TLS, and wstunnel, two legs of WebSocket in TLS."""

import subprocess

import harness
from chains import certificates
from chains.base import Chain


def version(program):
    words = [harness.find_tool(program), "--version"]
    return subprocess.run(words, capture_output=True, text=True, timeout=20).stdout.strip()


class Bore(Chain):
    name = "bore"
    about = "bore: one leg from the device, no TLS"
    needs = ("bore",)
    install = "cargo install bore-cli"
    control = 7835  # fixed in bore

    @classmethod
    def versions(cls):
        return {"bore": version("bore")}

    def launch(self):
        bore = harness.find_tool("bore")
        public = harness.free_port()
        limits = ("--min-port", public, "--max-port", public)
        server = self.program("server", [bore, "server", "--bind-addr", "127.0.0.1", *limits])
        self.wait_for_listener(server, self.control)
        words = [bore, "local", self.target_port, "--to", "127.0.0.1", "--port", public]
        local = self.program("local", words)
        self.wait_for_listener(local, public)
        self.address = f"127.0.0.1:{public}"


class Wstunnel(Chain):
    name = "wstunnel"
    about = "wstunnel: two legs of WebSocket in TLS, not masked"
    needs = ("wstunnel", "openssl")
    install = (
        "a release from https://github.com/erebe/wstunnel/releases "
        "(the crate of that name is another program)"
    )

    @classmethod
    def versions(cls):
        return {"wstunnel": version("wstunnel")}

    def launch(self):
        certificates.make(self.folder)
        wstunnel = harness.find_tool("wstunnel")
        hub, join, local = (harness.free_port() for _ in range(3))
        # By address: it waits for 250 ms between the addresses of a name.
        url = f"wss://127.0.0.1:{hub}"
        files = (
            "--tls-certificate", self.folder / "cert.pem",
            "--tls-private-key", self.folder / "key.pem",
        )  # fmt: skip
        server = self.program("server", [wstunnel, "server", *files, f"wss://127.0.0.1:{hub}"])
        self.wait_for_listener(server, hub)
        trust = {"SSL_CERT_FILE": str(self.folder / "ca.pem")}
        client = [wstunnel, "client", "--tls-verify-certificate"]
        backward = f"tcp://127.0.0.1:{join}:{self.target}"
        device = self.program("device", [*client, "-R", backward, url], env=trust)
        self.wait_for_listener(device, join)
        forward = f"tcp://127.0.0.1:{local}:127.0.0.1:{join}"
        service = self.program("service", [*client, "-L", forward, url], env=trust)
        self.wait_for_listener(service, local)
        self.address = f"127.0.0.1:{local}"
