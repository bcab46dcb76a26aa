"""Three haproxy processes with two TLS legs and no WebSocket, which are exactly our hops: the
baseline."""

import resource
import subprocess

import harness
from chains import certificates
from chains.base import Chain

# TLS 1.3 and verified certificates as in our programs; resumption, buffers, threads and TCP_NODELAY
# (always on) are haproxy's defaults.
CONFIGURATION = """
global
    maxconn {room}
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-server-options ssl-min-ver TLSv1.3
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen hop
    maxconn {room}
    bind 127.0.0.1:{port} backlog 4096 {bind}
    server next {to} {server}
"""


def room():
    """Connections that the descriptor limit allows: two sockets each."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(20_000, (soft - 200) // 2)


class Haproxy(Chain):
    name = "haproxy"
    about = "three haproxy, two TLS legs, no WebSocket"
    needs = ("haproxy", "openssl")
    install = "apt-get install haproxy openssl"

    @classmethod
    def versions(cls):
        words = [harness.find_tool("haproxy"), "-v"]
        text = subprocess.run(words, capture_output=True, text=True, timeout=20).stdout
        return {"haproxy": text.splitlines()[0] if text else "?"}

    def launch(self):
        certificates.make(self.folder)
        tls_in = f"ssl crt {self.folder / 'both.pem'}"
        tls_out = (
            f"ssl verify required ca-file {self.folder / 'ca.pem'} "
            "sni str(localhost) verifyhost localhost"
        )
        service, hub, device = (harness.free_port() for _ in range(3))
        self.hop("device", device, self.target, bind=tls_in)
        self.hop("hub", hub, f"127.0.0.1:{device}", bind=tls_in, server=tls_out)
        self.hop("service", service, f"127.0.0.1:{hub}", server=tls_out)
        self.address = f"127.0.0.1:{service}"

    def hop(self, name, port, to, bind="", server=""):
        file = self.folder / f"{name}.cfg"
        text = CONFIGURATION.format(room=room(), port=port, to=to, bind=bind, server=server)
        file.write_text(text)
        process = self.program(name, [harness.find_tool("haproxy"), "-db", "-f", file])
        self.wait_for_listener(process, port)
