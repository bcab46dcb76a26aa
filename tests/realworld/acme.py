#!/usr/bin/env python3
"""A hub whose certificate a CA signs by ACME: pebble, which comes to port 443 of hub.example.com. The
first certificate, a renewal while a stream runs, a CA that is away, and one that has forgotten
everything. In a network namespace, where that port and that name are the hub's.
"""

import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import socket
import ssl
import threading
import urllib.request

import harness
import namespace
from harness import DEVICE, check, equal

HOST, OTHER_HOST = "hub.example.com", "hub2.example.com"
LIFE = 75  # seconds that pebble's certificates are valid; two thirds of it are 50
SIGNED = r"the CA has signed a certificate"
REFUSED = (ssl.SSLError, ConnectionError)


def main(lab):
    harness.need("pebble", "openssl")
    pebble = Pebble(lab)
    hub = AcmeHub(lab, pebble, hostname=HOST, https=443, mqtts=8883)

    with lab.step("the CA is away at the first start: the hub says so once, and refuses TLS"):
        hub.start()
        hub.process.wait_for(r"no certificate from https://localhost:\d+/dir yet: cannot connect")
        for port in (443, 8883):
            with refused():
                certificate(port, verify=False)
        check("trying again in" in hub.process.stderr, "it does not say when it tries again")
        file = lab.secret_file("early.cs", hub.create_device("early"))
        early = lab.start_ours(
            "device-proxy", "--echo", "--connection-string-file", file, env=user(lab.folder / "early", hub.roots)
        )
        early.wait_for(r"it refuses access; a stream-hub does so while it has no certificate.*; trying again")
        early.stop()

    # Its certificate does not exist yet.
    code = hub.cli("enrol", "--device", DEVICE)

    pebble.start()
    with lab.step("the first certificate: with the CA's root as only trust, on both ports"):
        hub.process.wait_for(SIGNED, 60)
        equal(hub.process.stderr.count("no certificate from"), 1, "lines about the CA that is away")
        first = certificate(443, pebble.root)
        equal(certificate(8883, pebble.root), first, "serial number on the port of MQTT")
        check(not hub.ca.exists(), "the hub has made a CA of its own")
        check_files(hub)

    home = lab.folder / "home"
    target = harness.TcpServer(harness.echo_back)
    with lab.step("a code from before the certificate makes a device, which trusts the root only"):
        device = lab.start_ours(
            "device-proxy", "enrol", code, "--dir", home / "device-streams", "--target", f"mirror=127.0.0.1:{target.port}",
            env=user(home, pebble.root),
        )  # fmt: skip
        device.wait_for(r"\bconnected\b")
        check("ca-file" not in (home / "device-streams/device-proxy.toml").read_text(), "it was given a CA to trust")

    forward = None
    with lab.step("an operator logs in with a code from before a renewal, and streams run"):
        code = hub.cli("enrol", "--operator")
        seen = hub.process.stderr.count(SIGNED)
        harness.wait_until(lambda: hub.process.stderr.count(SIGNED) > seen, LIFE, "a renewal")
        check(certificate(443, pebble.root) != first, "there is no new certificate")
        lab.run([harness.binary("service-proxy"), "login", code], env={**harness.clean_environment(), **user(home, pebble.root)})
        lab.remember_secrets((home / "device-streams/hub.cs").read_text())
        check("ca-file" not in (home / "device-streams/service-proxy.toml").read_text(), "it was given a CA to trust")
        forward, port = listen(lab, home, pebble.root)

    with lab.step("a stream lives through a renewal, new connections see the new certificate"):
        before = certificate(443, pebble.root)
        with harness.connect(port) as connection:
            check(round_trip(connection), "the stream does not echo")
            harness.wait_until(lambda: certificate(443, pebble.root) != before, LIFE, "a renewal", pause=0.5)
            check(round_trip(connection), "the stream did not live through the renewal")
        equal(certificate(8883, pebble.root), certificate(443, pebble.root), "serial number on the port of MQTT")
        check("device disconnected" not in hub.process.stderr, "the device lost its session")
        check(harness.echoes(port), "a new stream does not echo")

    with lab.step("a restart takes the certificate that is there"):
        serial = certificate(443, pebble.root)
        hub.process.stop()
        hub.start()
        equal(certificate(443, pebble.root), serial, "serial number")
        check("registered an account" not in hub.process.stderr, "it has registered another account")
        harness.wait_until(lambda: harness.echoes(port), 40, "the device is back")

    with lab.step("without a challenge nobody gets an answer to one"):
        with refused():
            certificate(443, verify=False, protocols=["acme-tls/1"])
        certificate(443, pebble.root, protocols=["http/1.1", "acme-tls/1"])

    with lab.step("the CA is away at a renewal: the hub goes on, says until when, and then that this is over"):
        with harness.connect(port) as connection:
            pebble.stop()
            hub.process.wait_for(r"WARN.* no new certificate from .*cannot connect.*; the present one is valid until \d{4}-", LIFE)
            check(round_trip(connection), "the stream does not echo")
            certificate(443, pebble.root)
            hub.process.wait_for(r"ERROR.*THE CERTIFICATE HAS EXPIRED on \d{4}-", LIFE)
            try:
                certificate(443, pebble.root)
            except ssl.SSLCertVerificationError as error:
                check("expired" in str(error), f"refused, but: {error}")
            else:
                raise harness.Failure("an expired certificate is accepted")
            equal(hub.process.stderr.count("no new certificate from"), 1, "lines about the CA that is away")

            # A new root, and an empty database: the hub's account is none of its.
            pebble.start()
            hub.process.wait_for(r"registered an account", 120)
            hub.process.wait_for(SIGNED, 60)
            certificate(443, pebble.root)
            check(round_trip(connection), "the stream did not live through it")
    hub.process.stop()

    with lab.step("another host name is another order, and another port a hint"):
        moved = AcmeHub(lab, pebble, name="moved", hostname=OTHER_HOST, https=8443, data=hub.data).start()
        moved.process.wait_for(rf"WARN.*the CA validates {OTHER_HOST} on port 443, and HTTPS listens on port 8443")
        moved.process.wait_for(rf"the CA came to {OTHER_HOST} on port 443 and did not find this hub there: ", 60)
        with refused():
            certificate(8443, verify=False)
        moved.process.stop()
        moved = AcmeHub(lab, pebble, name="moved", hostname=OTHER_HOST, https=443, data=hub.data).start()
        moved.process.wait_for(SIGNED, 60)
        certificate(443, pebble.root, host=OTHER_HOST)
        moved.process.stop()

    with lab.step("a CA that wants a certificate replaced gets that at once"):
        adviser = Adviser(pebble)
        advised = AcmeHub(lab, adviser, name="advised", hostname=HOST, https=443).start()
        advised.process.wait_for(SIGNED, 60)
        serial = certificate(443, pebble.root)
        advised.process.stop()
        equal(adviser.asked, [], "certificates that were asked about")
        advised.start()
        advised.process.wait_for(SIGNED, 20)
        check(certificate(443, pebble.root) != serial, "the certificate is the same")
        equal(len(adviser.asked), 1, "number of questions about the renewal")
        equal(adviser.replaced, adviser.asked, "certificates that were replaced")
        advised.process.stop()
        adviser.close()

    with lab.step("a CA whose own certificate is not trusted is named, with what to do"):
        distrustful = AcmeHub(lab, pebble, name="distrustful", hostname=HOST, https=443, roots=pebble.root).start()
        distrustful.process.wait_for(r"localhost shows a certificate that no CA .*; name its root with --acme-ca-file")
        distrustful.process.stop()

    with lab.step("the root of a private CA goes along with enrolment"):
        roots = lab.folder / "private.pem"
        roots.write_text(pebble.api_root.read_text() + pebble.root.read_text())
        private = AcmeHub(lab, pebble, name="private", hostname=HOST, https=443, roots=roots).start()
        private.process.wait_for(SIGNED, 60)
        home = lab.folder / "home-2"
        code = private.cli("enrol", "--device", DEVICE)
        device = lab.start_ours("device-proxy", "enrol", code, "--dir", home / "device-streams", env=user(home))
        device.wait_for(r"\bconnected\b")
        given = ssl.create_default_context(cafile=home / "device-streams/hub-ca.pem").get_ca_certs()
        equal(len(given), 1, "number of CAs that the device was given")
        private.process.stop()

    with lab.step("a hub with a CA of its own changes over: its devices go on, before and after"):
        own = harness.Hub(lab, name="own", hostname=HOST, https=443, mqtts=8883).start()
        both = lab.folder / "both.pem"
        both.write_text(own.ca.read_text() + pebble.root.read_text())
        device = own.device_proxy(own.create_device(), "--echo", ca=both)
        device.wait_for(r"\bconnected\b")
        own.process.stop()
        pebble.stop()
        changed = AcmeHub(lab, pebble, name="changed", hostname=HOST, https=443, mqtts=8883, data=own.data).start()
        changed.process.wait_for(r"one of the hub's own CA is shown")
        changed.process.wait_for(r"device connected", 40)
        pebble.start()
        changed.process.wait_for(SIGNED, 60)
        certificate(443, pebble.root)

    with lab.step("no private key in any log"):
        for process in lab.ours:
            check("PRIVATE KEY" not in process.output and "key_pkcs8" not in process.output, f"a key in {process.name}'s log")


class Pebble:
    """pebble, and the CA of its own HTTPS. Its requests for a nonce fail now and then, on purpose."""

    def __init__(self, lab):
        self.lab = lab
        self.port = harness.free_port()
        self.management = harness.free_port()
        self.folder = lab.folder / "pebble"
        self.folder.mkdir()
        self.root = self.folder / "root.pem"
        self.api_root = self.folder / "api-root.pem"
        self.process = None
        make_certificate(lab, self.folder)
        config = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(self.folder / "api.pem"),
            "privateKey": str(self.folder / "api.key"),
            "httpPort": 80,
            "tlsPort": 443,
            "certificateValidityPeriod": LIFE,
        }
        (self.folder / "config.json").write_text(json.dumps({"pebble": config}))

    @property
    def directory(self):
        return f"https://localhost:{self.port}/dir"

    def start(self):
        argv = [harness.need("pebble"), "-config", self.folder / "config.json"]
        self.process = self.lab.start("pebble", argv, env={"PEBBLE_VA_NOSLEEP": "1"})
        context = ssl.create_default_context(cafile=self.api_root)
        url = f"https://localhost:{self.management}/roots/0"

        def answer():
            try:
                with urllib.request.urlopen(url, context=context, timeout=5) as response:
                    return response.read().decode()
            except OSError:
                check(self.process.running(), f"pebble ended: {self.process.tail()}")
                return None

        self.root.write_text(harness.wait_until(answer, 20, "pebble answers"))

    def stop(self):
        self.process.stop()


class Adviser:
    """Before pebble: it wants each certificate renewed at once (RFC 9773), which pebble cannot."""

    def __init__(self, pebble):
        self.pebble = pebble
        self.api_root = pebble.api_root
        self.asked, self.replaced = [], []
        self.trust = ssl.create_default_context(cafile=pebble.api_root)
        adviser = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def handle_any(self):
                adviser.answer(self)

            do_GET = do_HEAD = do_POST = handle_any

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pebble.folder / "api.pem", pebble.folder / "api.key")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def directory(self):
        return f"https://localhost:{self.server.server_port}/dir"

    def answer(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        if handler.path.startswith("/renewal/"):
            self.asked.append(handler.path.removeprefix("/renewal/"))
            window = {"start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"}
            return send(handler, 200, {"Retry-After": "21600"}, json.dumps({"suggestedWindow": window}).encode())
        connection = http.client.HTTPSConnection("localhost", self.pebble.port, context=self.trust, timeout=20)
        with contextlib.closing(connection):
            connection.request(handler.command, handler.path, body, dict(handler.headers))
            answer = connection.getresponse()
            content = answer.read()
        if handler.path == "/dir":
            base = self.directory.removesuffix("/dir")
            content = json.dumps({**json.loads(content), "renewalInfo": f"{base}/renewal"}).encode()
        if handler.path == "/order-plz" and answer.status == 201:
            payload = json.loads(body)["payload"]
            replaces = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))).get("replaces")
            if replaces:
                self.replaced.append(replaces)
                content = json.dumps({**json.loads(content), "replaces": replaces}).encode()
        kept = ("location", "replay-nonce", "content-type", "retry-after", "link")
        headers = {name: value for name, value in answer.getheaders() if name.lower() in kept}
        return send(handler, answer.status, headers, content)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def send(handler, status, headers, content):
    handler.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(content))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)


class AcmeHub(harness.Hub):
    """A hub that orders its certificate from pebble; `data` is another one's folder."""

    def __init__(self, lab, pebble, roots=None, data=None, **options):
        super().__init__(lab, **options)
        self.pebble = pebble
        self.roots = roots or pebble.api_root
        self.data = data or self.data

    def start(self):
        self.process = self.lab.start_ours(
            "stream-hub", "serve",
            "--data-dir", self.data,
            "--hostname", self.host,
            "--https", f"127.0.0.1:{self.https}",
            "--mqtts", f"127.0.0.1:{self.mqtts}",
            "--acme",
            "--acme-directory", self.pebble.directory,
            "--acme-ca-file", self.roots,
            "--acme-contact", "mailto:ops@example.com",
            name=self.name,
        )  # fmt: skip
        self.process.wait_for(r"\bready\b")
        return self


def make_certificate(lab, folder):
    """The CA of pebble's own HTTPS, and its certificate for localhost."""
    openssl = harness.need("openssl")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    lab.run([openssl, "req", "-x509", *key, "-keyout", folder / "api-root.key", "-out", folder / "api-root.pem",
             "-subj", "/CN=pebble's API", "-days", "2", "-addext", "keyUsage=critical,keyCertSign"])  # fmt: skip
    lab.run([openssl, "req", *key, "-keyout", folder / "api.key", "-out", folder / "api.csr", "-subj", "/CN=localhost"])
    (folder / "api.ext").write_text("subjectAltName=DNS:localhost\n")
    lab.run([openssl, "x509", "-req", "-in", folder / "api.csr", "-CA", folder / "api-root.pem",
             "-CAkey", folder / "api-root.key", "-CAcreateserial", "-days", "2", "-extfile", folder / "api.ext",
             "-out", folder / "api.pem"])  # fmt: skip


def certificate(port, root=None, verify=True, protocols=None, host=HOST):
    """The digest of the certificate on a port, after a handshake by which only this root is trusted."""
    context = ssl.create_default_context(cafile=root) if verify else ssl._create_unverified_context()
    if protocols:
        context.set_alpn_protocols(protocols)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        with context.wrap_socket(connection, server_hostname=host) as secure:
            if protocols and "http/1.1" in protocols:
                equal(secure.selected_alpn_protocol(), "http/1.1", "protocol")
            return hashlib.sha256(secure.getpeercert(True)).hexdigest()


@contextlib.contextmanager
def refused():
    try:
        yield
    except REFUSED:
        return
    raise harness.Failure("the handshake was not refused")


def user(home, root=None):
    """The environment of a user whose system trusts this root, and no other."""
    home.mkdir(exist_ok=True)
    empty = home / "no-roots.pem"
    empty.write_text("")
    return {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "SSL_CERT_FILE": str(root or empty),
        "SSL_CERT_DIR": str(home / "no-certificates"),
    }


def listen(lab, home, root):
    process = lab.start_ours("service-proxy", "listen", DEVICE, "0:mirror", env=user(home, root))
    return process, int(process.wait_for(r"127\.0\.0\.1:(\d+)")[1])


def round_trip(connection):
    payload = os.urandom(1000)
    connection.sendall(payload)
    return harness.receive_exactly(connection, len(payload)) == payload


def check_files(hub):
    """What is kept is for its owner only."""
    folder = hub.data / "tls/acme"
    for name in ("key.pem", "account.json"):
        equal((folder / name).stat().st_mode & 0o777, 0o600, f"mode of {name}")
    equal(folder.stat().st_mode & 0o777, 0o700, "mode of the folder")


if __name__ == "__main__":
    namespace.run(main, HOST, OTHER_HOST)
