#!/usr/bin/env python3
"""The hub's listeners as testssl.sh and sslscan see them.

Every finding of testssl.sh from LOW up has to stand in EXPLAINED, with the reason why it is as it
should be; anything else fails, and so does an explanation that is not needed any more.
"""

import concurrent.futures
import json
import re
import xml.etree.ElementTree as xml

import harness
from harness import check, equal

# What testssl.sh rates as LOW or worse, by its id.
BAD = ("LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL", "WARN")

# id: why it is no fault. Each is found on every listener, or its listeners are named behind it.
EXPLAINED = {
    "cert_revocation": "the certificate is of the hub's own CA, which lives on the same machine and "
    "revokes nothing: a certificate is valid for weeks, and is replaced",
    "cipher_order": "the client chooses: all ciphers are equally strong, and a device without instructions "
    "for AES is faster with another one",
    "security_headers": "as with HSTS: they are for browsers",
    "engine_problem": "of the openssl that testssl.sh runs with: it cannot look for ciphers of GOST, which "
    "rustls does not have",
    "HSTS": "no browser comes here: every client of this port uses https or wss by its configuration, "
    "and there is no port for plain HTTP to be sent to",
}

# Without the attacks on ciphers (SWEET32, FREAK, LOGJAM, LUCKY13, …): sslscan shows that none of these
# ciphers is there.
SECTIONS = [
    "--protocols", "--server-defaults", "--server-preference", "--fs",
    "--std", "--heartbleed", "--ccs-injection", "--ticketbleed", "--robot", "--renegotiation",
    "--compression", "--poodle", "--tls-fallback",
]  # fmt: skip


def main(lab):
    testssl = harness.need("testssl")
    sslscan = harness.need("sslscan")
    config, amqps = lab.folder / "stream-hub.toml", harness.free_port()
    config.write_text(f'amqps = "127.0.0.1:{amqps}"\n')
    hub = harness.Hub(lab).start(log_level="info", env={"STREAM_HUB_CONFIG": str(config)})
    listeners = {"https": hub.https, "mqtts": hub.mqtts, "amqps": amqps}

    # It waits for its own processes most of the time.
    with concurrent.futures.ThreadPoolExecutor() as threads:
        running = {name: threads.submit(findings, lab, testssl, hub, name, port) for name, port in listeners.items()}

    found = {}
    for name in listeners:
        with lab.step(f"testssl.sh on {name}: no finding without an explanation"):
            found[name] = running[name].result()
            # It gives its own processes little time, and a busy machine is no finding.
            if any("connect problem" in finding["finding"] for finding in found[name]):
                found[name] = findings(lab, testssl, hub, name, listeners[name])
            bad = {f"{f['id']} ({f['severity']}): {f['finding']}" for f in found[name] if is_bad(f) and f["id"] not in EXPLAINED}
            check(not bad, "; ".join(sorted(bad)))
        with lab.step(f"testssl.sh on {name}: what is there and what is not"):
            of = {finding["id"]: finding for finding in found.get(name, [])}
            for version, offered in (("SSLv2", False), ("SSLv3", False), ("TLS1", False), ("TLS1_1", False), ("TLS1_2", True), ("TLS1_3", True)):
                text = of[version]["finding"]
                equal(text.startswith("offered"), offered, f"{version} ({text})")
            for attack in ("heartbleed", "CCS", "ROBOT", "secure_client_renego", "CRIME_TLS", "POODLE_SSL"):
                equal(of[attack]["severity"], "OK", f"{attack}: {of[attack]['finding']}")

    with lab.step("every explanation is needed"):
        ids = {f["id"] for all_of_one in found.values() for f in all_of_one if is_bad(f)}
        equal(sorted(set(EXPLAINED) - ids), [], "explanations of findings that are not there any more")

    for name, port in listeners.items():
        with lab.step(f"sslscan on {name}: TLS 1.2 and 1.3 with forward secrecy and authenticated ciphers alone"):
            scan(lab, sslscan, port)

    with lab.step("devices and streams work beside it"):
        hub.device_proxy(hub.create_device(), "--echo")
        equal(hub.echo("--count", "1").returncode, 0, "exit code of echo")


def is_bad(finding):
    return finding["severity"] in BAD


def findings(lab, testssl, hub, name, port):
    """What testssl.sh has found."""
    file = lab.folder / f"testssl-{name}.json"
    # A busy machine may cost it a connection, and then it stops in the midst of its report: once more.
    for is_last in (False, True):
        file.unlink(missing_ok=True)
        lab.run(
            [
                testssl, "--quiet", "--color", "0", "--warnings", "batch", "--ip", "one", "--nodns", "min",
                "--add-ca", hub.ca, "--jsonfile", file, *SECTIONS, *(["--headers"] if name == "https" else []),
                f"localhost:{port}",
            ],
            timeout=560,
            ok=False,
        )  # fmt: skip
        check(file.exists(), "testssl.sh wrote no findings")
        text = file.read_text()
        (lab.logs / file.name).write_text(text)
        if is_last or not any(word in text for word in ("scanProblem", "connect problem")):
            break
    all_of_them = json.loads(text)
    check(len(all_of_them) > 40, f"only {len(all_of_them)} findings")
    return all_of_them


def scan(lab, sslscan, port):
    file = lab.folder / f"sslscan-{port}.xml"
    lab.run([sslscan, "--no-colour", f"--xml={file}", f"localhost:{port}"], timeout=120)
    test = xml.parse(file).getroot().find("ssltest")
    versions = {f"{p.get('type')} {p.get('version')}": p.get("enabled") for p in test.findall("protocol")}
    on = sorted(version for version, enabled in versions.items() if enabled == "1")
    equal(on, ["tls 1.2", "tls 1.3"], "versions")
    ciphers = [cipher.get("cipher") for cipher in test.findall("cipher")]
    check(len(ciphers) >= 6, f"few ciphers: {ciphers}")
    weak = [name for name in ciphers if not re.search(r"^TLS_|^ECDHE-.*(GCM|CHACHA20)", name)]
    equal(weak, [], "ciphers without forward secrecy or authentication of what is encrypted")
    for attack in test.findall("heartbleed"):
        equal(attack.get("vulnerable"), "0", "heartbleed")
    for compression in test.findall("compression"):
        equal(compression.get("supported"), "0", "compression")
    for renegotiation in test.findall("renegotiation"):
        check(renegotiation.get("secure") == "1" or renegotiation.get("supported") == "0", "insecure renegotiation")


if __name__ == "__main__":
    harness.run(main)
