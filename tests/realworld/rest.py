"""The hub's service API over plain HTTPS, with nothing but the standard library."""

import base64
import hashlib
import hmac
import http.client
import json
import ssl
import time
import urllib.parse

from harness import check

API = "api-version=2021-04-12"


def parse(connection_string):
    return dict(item.split("=", 1) for item in connection_string.split(";"))


def sas(resource, key, policy=None, life=3600, written=None):
    """A SAS token; `written` is the spelling of the resource that is signed."""
    written = written or urllib.parse.quote(resource, safe="")
    expiry = int(time.time()) + life
    digest = hmac.new(base64.b64decode(key), f"{written}\n{expiry}".encode(), hashlib.sha256).digest()
    signature = urllib.parse.quote(base64.b64encode(digest), safe="")
    return f"SharedAccessSignature sr={written}&sig={signature}&se={expiry}" + (f"&skn={policy}" if policy else "")


def quoted(name):
    return urllib.parse.quote(name, safe="")


class Rest:
    """A service with the rights of a shared access policy."""

    def __init__(self, hub, policy="iothubowner"):
        self.hub = hub
        self.policy = parse(hub.service_string(policy))
        self.context = ssl.create_default_context(cafile=hub.ca)

    def send(self, method, path, body=None, headers=(), timeout=90):
        """The answer, whatever it says. A body that is not bytes is sent as JSON."""
        headers = {"Authorization": self.token(), **dict(headers)}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json; charset=utf-8")
        connection = http.client.HTTPSConnection(
            self.hub.host, self.hub.https, timeout=timeout, context=self.context
        )
        try:
            connection.request(method, f"{path}{'&' if '?' in path else '?'}{API}", body, headers)
            return Answer(f"{method} {path}", connection.getresponse())
        finally:
            connection.close()

    def call(self, method, path, body=None, headers=(), timeout=90):
        """The JSON of an answer that says success."""
        answer = self.send(method, path, body, headers, timeout)
        check(answer.status in (200, 201, 204), f"{answer.call}: {answer.status} {answer.text[:300]}")
        return answer.json()

    def token(self):
        return sas(self.hub.address, self.policy["SharedAccessKey"], self.policy["SharedAccessKeyName"])

    # What suites ask for most.

    def identity(self, device):
        return self.call("GET", f"/devices/{quoted(device)}")

    def twin(self, device):
        return self.call("GET", f"/twins/{quoted(device)}")

    def patch_twin(self, device, patch, etag="*"):
        return self.call("PATCH", f"/twins/{quoted(device)}", patch, {"If-Match": f'"{etag}"'})

    def method(self, device, name, payload=None, connect=0, response=30):
        """What a device answers: `{"status": …, "payload": …}`."""
        request = {
            "methodName": name,
            "payload": payload,
            "connectTimeoutInSeconds": connect,
            "responseTimeoutInSeconds": response,
        }
        return self.call("POST", f"/twins/{quoted(device)}/methods", request, timeout=connect + response + 10)

    def send_message(self, device, body, properties=(), **system):
        """A message to a device. The names of system properties are IoT Hub's over HTTPS, without
        their prefix."""
        headers = {f"iothub-{name}": value for name, value in system.items()}
        headers.update({f"iothub-app-{name}": value for name, value in dict(properties).items()})
        path = f"/devices/{quoted(device)}/messages/devicebound"
        answer = self.send("POST", path, body, headers)
        check(answer.status in (200, 201, 202, 204), f"{answer.call}: {answer.status} {answer.text[:300]}")

    def query(self, text, page=None):
        """Every row of a query, page after page."""
        rows, token = [], None
        while True:
            headers = {"x-ms-max-item-count": str(page)} if page else {}
            if token:
                headers["x-ms-continuation"] = token
            answer = self.send("POST", "/devices/query", {"query": text}, headers)
            check(answer.status == 200, f"{text}: {answer.status} {answer.text[:300]}")
            rows += answer.json()
            token = answer.headers.get("x-ms-continuation")
            if token is None:
                return rows


class Answer:
    """An answer of the hub, and the call that it belongs to."""

    def __init__(self, call, response):
        self.call = call
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.text = response.read().decode(errors="replace")

    def json(self):
        return json.loads(self.text) if self.text else None
