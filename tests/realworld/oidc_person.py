"""The parts of the suite `oidc` around the hub: the organisation's identity provider, which is a program
of others (npm: oidc-provider), and the person at its pages."""

import base64
import hashlib
import hmac
import html
import http.cookiejar
import json
import pathlib
import re
import ssl
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import harness
from harness import check

SERVER = pathlib.Path(__file__).with_name("oidc_provider.cjs")
# With what a form and an URL have to encode.
CLIENT_SECRET = "se:cret of the+client/%41&="
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"


class Provider:
    """The provider, with TLS by a CA of its own."""

    def __init__(self, lab, people, name="provider", refresh_seconds=3600):
        node = harness.need("node")
        modules = harness.WORK / "npm" / "node_modules"
        if not (modules / "oidc-provider").exists():
            raise harness.Skip("oidc-provider is not installed (from npm, see package.json)")
        self.port = harness.free_port()
        self.issuer = f"https://localhost:{self.port}"
        self.ca, certificate, key = make_certificate(lab, name)
        self.process = lab.start(
            name, [node, SERVER], stdin=subprocess.PIPE,
            env={
                "PORT": str(self.port), "CERT": str(certificate), "KEY": str(key), "NODE_PATH": str(modules),
                "PEOPLE": json.dumps(people), "REFRESH_SECONDS": str(refresh_seconds),
                "CLIENT_SECRET": CLIENT_SECRET,
            },
        )  # fmt: skip
        self.process.wait_for("provider ready", 60)
        self.tls = ssl.create_default_context(cafile=self.ca)

    def change(self, **what):
        """Has the provider change what it is, and waits until it has."""
        before = self.process.output.count("changed")
        self.process.popen.stdin.write(json.dumps(what).encode() + b"\n")
        self.process.popen.stdin.flush()
        harness.wait_until(lambda: self.process.output.count("changed") > before, 20, "the provider has changed")

    def log_in(self, url, person):
        """What the person does in a browser: every page has one form."""
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        browser = urllib.request.build_opener(urllib.request.HTTPSHandler(context=self.tls), cookies)
        page = browser.open(url, timeout=20)
        for _ in range(8):
            text, here = page.read().decode(), page.geturl()
            if "Sign-in Success" in text:
                return
            form = re.search(r'<form[^>]*?action="([^"]+)"[^>]*>(.*?)</form>', text, re.S)
            check(form, f"the page at {here} has no form: {text[-300:]}")
            fields = dict(re.findall(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"', form[2]))
            if 'name="login"' in form[2]:
                fields |= {"login": person, "password": "-"}
            body = urllib.parse.urlencode(fields).encode()
            page = browser.open(urllib.parse.urljoin(here, html.unescape(form[1])), body, timeout=20)
        raise harness.Failure("the provider asks on and on")

    def identity_token(self, person, client="service-proxy"):
        """What the provider gives to a program, here to us."""
        asked = self.post("/device/auth", client_id=client, scope="openid email groups")
        self.log_in(asked["verification_uri_complete"], person)
        answer = self.post("/token", client_id=client, grant_type=DEVICE_CODE, device_code=asked["device_code"])
        return answer["id_token"]

    def post(self, path, **fields):
        body = urllib.parse.urlencode(fields).encode()
        with urllib.request.urlopen(self.issuer + path, body, timeout=20, context=self.tls) as answer:
            return json.load(answer)

    def public_key(self):
        with urllib.request.urlopen(self.issuer + "/jwks", timeout=20, context=self.tls) as answer:
            return json.load(answer)["keys"][0]


def make_certificate(lab, name):
    """A CA, and the certificate and the key that it gives to localhost."""
    openssl = harness.need("openssl")
    ca, ca_key, request, certificate, key, extensions = (
        lab.folder / f"{name}-{what}" for what in ("ca.pem", "ca.key", "csr", "pem", "key", "ext")
    )
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    lab.run([openssl, "req", "-x509", *new_key, "-keyout", ca_key, "-out", ca, "-days", "2", "-subj", f"/CN=CA of {name}"])
    lab.run([openssl, "req", *new_key, "-keyout", key, "-out", request, "-subj", "/CN=localhost"])
    extensions.write_text("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
    signing = ["-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-extfile", extensions, "-days", "2"]
    lab.run([openssl, "x509", "-req", "-in", request, "-out", certificate, *signing])
    return ca, certificate, key


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(token, **header):
    """The same token with another header, and no signature or one by a key that everybody has."""
    secret = header.pop("secret", None)
    old, claims, _ = token.split(".")
    old = json.loads(base64.urlsafe_b64decode(old + "=="))
    signed = f"{encoded(json.dumps(old | header).encode())}.{claims}"
    signature = hmac.new(secret, signed.encode(), hashlib.sha256).digest() if secret else b""
    return f"{signed}.{encoded(signature)}"


def exchange(hub, token):
    """Shows an identity token to the hub; the status of its answer and what it says."""
    body = json.dumps({"identityToken": token}).encode()
    request = urllib.request.Request(f"https://{hub.address}/access/login", body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=20, context=ssl.create_default_context(cafile=hub.ca)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.load(refusal)
