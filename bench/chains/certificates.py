"""A CA and a server certificate for localhost, of the same kind as our hub's (P-256)."""

import subprocess

import harness
from harness import check


def make(folder):
    """Creates `ca.pem`, `cert.pem`, `key.pem`, and `both.pem` with the last two."""
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    _openssl(
        "req", "-x509", *curve, "-subj", "/CN=bench CA",
        "-keyout", folder / "ca.key", "-out", folder / "ca.pem",
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign",
    )  # fmt: skip
    _openssl(
        "req", "-x509", *curve, "-subj", "/CN=localhost",
        "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key",
        "-keyout", folder / "key.pem", "-out", folder / "cert.pem",
        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-addext", "basicConstraints=critical,CA:FALSE",
    )  # fmt: skip
    both = (folder / "cert.pem").read_text() + (folder / "key.pem").read_text()
    (folder / "both.pem").write_text(both)


def _openssl(*words):
    argv = [harness.find_tool("openssl") or "openssl", *map(str, words)]
    result = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    check(result.returncode == 0, f"openssl {words[0]}: {result.stderr.strip()[-300:]}")
