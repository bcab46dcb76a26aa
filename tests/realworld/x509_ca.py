#!/usr/bin/env python3
"""Devices with certificates of a registered CA: chains and revocation lists by openssl, Microsoft's
device SDKs for Python and Node, and device-proxy, over both transports.

In a network namespace, since the SDKs know no ports other than 443 and 8883.
"""

import logging
import os
import pathlib

import harness
import namespace
from harness import check, equal

HOST = "hub.device-streams.test"
DEVICE_JS = pathlib.Path(__file__).with_name("x509_device.cjs")

# What `openssl ca` needs for its list of what it has signed.
CA_CONFIG = """
[ca]
default_ca = this
[this]
database = {folder}/index.txt
new_certs_dir = {folder}
certificate = {folder}/ca.pem
private_key = {folder}/ca.key
serial = {folder}/serial
crlnumber = {folder}/crlnumber
crl_extensions = list
default_md = sha256
default_days = 2
default_crl_days = 2
policy = any
unique_subject = no
[any]
commonName = supplied
organizationName = optional
[issuer]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[list]
authorityKeyIdentifier = keyid
[device]
basicConstraints = CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
authorityKeyIdentifier = keyid
"""


class Ca:
    """A CA as `openssl ca` keeps it: `key` is how its own key is made."""

    def __init__(self, lab, name, key, parent=None):
        self.lab, self.name, self.parent = lab, name, parent
        self.openssl = harness.need("openssl")
        self.folder = lab.folder / name
        self.folder.mkdir()
        (self.folder / "index.txt").touch()
        for numbers in ("serial", "crlnumber"):
            (self.folder / numbers).write_text("1000\n")
        self.config = self.folder / "ca.conf"
        self.config.write_text(CA_CONFIG.format(folder=self.folder))
        self.certificate = self.folder / "ca.pem"
        own_key = self.folder / "ca.key"
        if parent is None:
            words = ["-x509", "-days", "3", "-config", "/etc/ssl/openssl.cnf", "-extensions", "v3_ca"]
            lab.run([self.openssl, "req", *words, *key, "-nodes", "-subj", f"/CN={name}", "-keyout", own_key, "-out", self.certificate])
            self.chain = ""
        else:
            request = self.folder / "ca.csr"
            lab.run([self.openssl, "req", "-new", *key, "-nodes", "-subj", f"/O=Makers/CN={name}", "-keyout", own_key, "-out", request])
            parent.sign(request, self.certificate, "issuer")
            self.chain = self.certificate.read_text() + parent.chain

    def sign(self, request, certificate, extensions):
        words = ["-batch", "-notext", "-config", self.config, "-extensions", extensions]
        self.lab.run([self.openssl, "ca", *words, "-in", request, "-out", certificate])

    def device(self, common_name, file, key=("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")):
        """The files of a certificate with its intermediate CAs, and of its key."""
        paths = [self.folder / f"{file}.{end}" for end in ("pem", "key", "csr")]
        certificate, own_key, request = paths
        self.lab.run([self.openssl, "req", "-new", *key, "-nodes", "-subj", f"/CN={common_name}", "-keyout", own_key, "-out", request])
        self.sign(request, certificate, "device")
        certificate.write_text(certificate.read_text() + self.chain)
        return certificate, own_key

    def revoke(self, certificate):
        self.lab.run([self.openssl, "ca", "-config", self.config, "-revoke", certificate])

    def revocation_list(self):
        return self.lab.run([self.openssl, "ca", "-config", self.config, "-gencrl"]).stdout


def main(lab):
    try:
        import azure.iot.device as sdk
    except ImportError as missing:
        raise harness.Skip(f"{missing} (from PyPI, see requirements.txt)") from None
    logging.getLogger("azure").setLevel(logging.CRITICAL)
    harness.need("openssl")

    hub = harness.Hub(lab, hostname=HOST, https=443, mqtts=8883).start()
    root = Ca(lab, "root", ["-newkey", "rsa:3072"])
    factory = Ca(lab, "factory", ["-newkey", "rsa:2048"], root)
    line = Ca(lab, "line", ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"], factory)
    crls = lab.folder / "crl.pem"

    def publish():
        new = lab.folder / "crl.new"
        new.write_text(root.revocation_list() + factory.revocation_list() + line.revocation_list())
        new.rename(crls)

    publish()
    with lab.step("a CA of openssl's is registered, with its revocation lists"):
        hub.cli("ca", "add", "fleet", root.certificate, "--crl", crls)
        listed = hub.cli("ca", "list")
        check("CN=root" in listed and str(crls) in listed, f"ca list: {listed}")
        hub.process.wait_for(r"certificates of this CA are believed")

    def client(name, pair, websockets):
        return sdk.IoTHubDeviceClient.create_from_x509_certificate(
            x509=sdk.X509(cert_file=str(pair[0]), key_file=str(pair[1])),
            hostname=HOST,
            device_id=name,
            server_verification_cert=hub.ca.read_text(),
            websockets=websockets,
            connection_retry=False,
        )

    def opens(name, pair, websockets=False):
        """Whether the certificate opens a session of this device."""
        device = client(name, pair, websockets)
        try:
            device.connect()
            device.send_message("from a device with a certificate")
            return True
        except (sdk.exceptions.CredentialError, sdk.exceptions.ConnectionFailedError):
            return False
        finally:
            device.shutdown()

    for name, ca, key in (
        ("Of-root", root, ["-newkey", "rsa:2048"]),
        ("Of-factory", factory, ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]),
        ("Of-line", line, ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"]),
    ):
        string = hub.create_device(name, "--x509-ca")
        pair = ca.device(name, "own", key)
        with lab.step(f"azure-iot-device, {name}: over both transports"):
            for websockets in (False, True):
                check(opens(name, pair, websockets), f"it was refused (WebSockets: {websockets})")
        with lab.step(f"azure-iot-device from npm, {name}: over both transports"):
            node_device(lab, hub, string, pair)
        with lab.step(f"device-proxy, {name}: echo over both transports"):
            for transport in ("mqtt", "mqtt-ws"):
                options = ["--echo", "--cert", pair[0], "--key", pair[1], "--transport", transport]
                process = hub.device_proxy(string, *options, name=f"device-{name}")
                result = hub.echo("--count", "1", device=name)
                equal(result.returncode, 0, f"exit code of echo ({result.stderr.strip()[-300:]})")
                process.stop()

    with lab.step("a certificate opens no other device, and another CA's opens none"):
        own = line.folder / "own.pem", line.folder / "own.key"
        check(not opens("Of-root", own), "the certificate of Of-line opened Of-root")
        check(not opens("Of-line", line.device("of-line", "case")), "another case opened Of-line")
        stranger = Ca(lab, "stranger", ["-newkey", "rsa:2048"])
        check(not opens("Of-line", stranger.device("Of-line", "own")), "an unknown CA opened Of-line")
        alone = line.folder / "alone.pem"
        alone.write_text(own[0].read_text().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n")
        check(not opens("Of-line", (alone, own[1])), "Of-line was opened without its intermediate CAs")
        check(opens("Of-line", own), "Of-line is not opened by its own")

    with lab.step("a certificate that its CA revokes loses its session, and the others do not"):
        pairs = {name: (ca.folder / "own.pem", ca.folder / "own.key") for name, ca in (("Of-factory", factory), ("Of-root", root))}
        devices = {name: client(name, pair, False) for name, pair in pairs.items()}
        try:
            for device in devices.values():
                device.connect()
            factory.revoke(factory.folder / "own.pem")
            publish()
            harness.wait_until(lambda: not devices["Of-factory"].connected, 5, "the end of its session")
            check(not opens("Of-factory", pairs["Of-factory"]), "the revoked certificate opened it again")
            check(devices["Of-root"].connected, "another device's session ended")
        finally:
            for device in devices.values():
                device.shutdown()

    with lab.step("a revoked intermediate CA takes all below it along"):
        own = line.folder / "own.pem", line.folder / "own.key"
        check(opens("Of-line", own), "it is refused before")
        root.revoke(factory.certificate)
        publish()
        harness.wait_until(lambda: not opens("Of-line", own), 10, "the refusal", pause=0.3)

    with lab.step("a CA that is removed opens nothing, and ends what it opened"):
        own = root.folder / "own.pem", root.folder / "own.key"
        device = client("Of-root", own, True)
        try:
            device.connect()
            hub.cli("ca", "remove", "fleet")
            harness.wait_until(lambda: not device.connected, 5, "the end of its session")
        finally:
            device.shutdown()
        check(not opens("Of-root", own), "it was opened again")


def node_device(lab, hub, string, pair):
    node = harness.need("node")
    modules = harness.WORK / "npm" / "node_modules"
    if not (modules / "azure-iot-device").is_dir():
        raise harness.Skip("azure-iot-device from npm is not installed")
    for transport in ("Mqtt", "MqttWs"):
        result = lab.run(
            [node, DEVICE_JS],
            env={
                **os.environ,
                "NODE_PATH": str(modules),
                "NODE_EXTRA_CA_CERTS": str(hub.ca),
                "DEVICE_STRING": string,
                "TRANSPORT": transport,
                "CERT": str(pair[0]),
                "KEY": str(pair[1]),
            },
        )
        equal(result.stdout.strip(), "sent", f"what it says over {transport} ({result.stderr[-300:]})")


if __name__ == "__main__":
    harness.use_venv()
    namespace.run(main, HOST)
