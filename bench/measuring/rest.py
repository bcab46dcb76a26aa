"""The hub's service API, as far as it is needed to register many devices and to run jobs."""

import base64
import hashlib
import hmac
import http.client
import json
import ssl
import time
import urllib.parse

from harness import check


class Rest:
    """One kept-alive connection with the token of `iothubowner`."""

    def __init__(self, hub):
        parts = dict(part.split("=", 1) for part in hub.service_string("iothubowner").split(";"))
        trust = ssl.create_default_context(cafile=hub.ca)
        self.connection = http.client.HTTPSConnection(
            "localhost", hub.https, context=trust, timeout=60
        )
        host = parts["HostName"].partition(":")[0]
        self.token = _token(host, parts["SharedAccessKeyName"], parts["SharedAccessKey"])

    def call(self, method, path, body=None):
        headers = {"Authorization": self.token, "Content-Type": "application/json"}
        text = None if body is None else json.dumps(body)
        self.connection.request(method, f"{path}?api-version=2020-09-30", text, headers)
        answer = self.connection.getresponse()
        text = answer.read().decode()
        check(answer.status == 200, f"{method} {path}: {answer.status} {text[:300]}")
        return json.loads(text)


def _token(host, policy, key):
    expiry = int(time.time()) + 3600
    resource = urllib.parse.quote(host, safe="")
    message = f"{resource}\n{expiry}".encode()
    digest = hmac.new(base64.b64decode(key), message, hashlib.sha256).digest()
    signature = urllib.parse.quote(base64.b64encode(digest), safe="")
    return f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={policy}"
