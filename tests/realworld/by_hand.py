#!/usr/bin/env python3
"""The protocol with third-party libraries, step by step.

paho-mqtt plays a device on one MQTT connection, http.client the service, and two
different WebSocket clients the legs of the stream: `websocket-client` for the
device's, `websockets` for the service's. Needs these packages from PyPI.
"""

import asyncio
import base64
import concurrent.futures
import contextlib
import http.client
import json
import os
import queue
import re
import socket
import ssl
import struct
import threading
import time
import urllib.parse

import harness
from harness import DEVICE, MIB, check, equal
from rest import parse, sas

try:
    import paho.mqtt.client as mqtt
    import websocket
    from websockets.asyncio.client import connect as websockets_connect
    from websockets.exceptions import ConnectionClosed
except ImportError as missing:
    mqtt, MISSING = None, missing

API = "api-version=2020-09-30"
LARGEST_MESSAGE = 65_536
TIMEOUT = 20


def main(lab):
    if mqtt is None:
        raise harness.Skip(f"{MISSING} (from PyPI, see requirements.txt)")
    hub = harness.Hub(lab).start()
    parts = parse(hub.create_device())
    service = Service(hub)

    for transport in ("tcp", "websockets"):
        with lab.step(f"a device by hand over {transport}: request, accept, both legs, bytes"):
            with HandDevice(hub, parts, transport) as device:
                posted = service.post()
                request = device.request()
                equal(request.name, "TestStream", "stream name")
                device.answer(request, 200)
                answer = posted.result()
                equal(answer.status, 200, f"status {answer.text}")
                equal(answer.headers["iothub-streaming-is-accepted"], "True", "is-accepted")
                with device_leg(hub, request.url, request.token) as left, service_leg(hub, answer) as right:
                    both_ways(left, right)

    with HandDevice(hub, parts) as device:
        answers(lab, hub, service, device)
        legs(lab, hub, Opener(hub, service, device))
        official_echo_device(lab, hub, device)
    offline_and_unauthorised(lab, hub, service, parts)
    takeover(lab, hub, service, parts)
    connections(lab, hub, parts)


# --- The service's answers


def answers(lab, hub, service, device):
    with lab.step("what clients need of the URL and the token"):
        posted = service.post()
        request = device.request()
        device.answer(request, 200)
        answer = posted.result()
        for url, token in ((request.url, request.token), (answer.url, answer.token)):
            where = urllib.parse.urlsplit(url)
            equal(where.scheme, "wss", "scheme")
            equal(where.port, hub.https, "port in the URL")
            check(len(where.path) > 1 and not where.query, f"path and query of {where.path!r}")
            check(len(token) <= 1016, f"token of {len(token)} characters")
            check(re.fullmatch(r"[A-Za-z0-9_.-]+", token), "characters of the token")
        check(re.fullmatch(r"[A-Za-z0-9-]{1,36}", request.rid), f"request id {request.rid!r}")
        check(request.ip != "", "an empty $ip breaks the C SDK")
        equal(request.levels, 5, "levels of the topic")
        check(request.token != answer.token, "one token for both legs")

    with lab.step("a reject is 200 and False, without URL and token"):
        posted = service.post()
        device.answer(device.request(), 400)
        answer = posted.result()
        equal((answer.status, answer.headers["iothub-streaming-is-accepted"]), (200, "False"), "answer")
        check(answer.url is None and answer.token is None, "URL or token with a reject")

    with lab.step("a silent device is 504101 after the response timeout"):
        started = time.monotonic()
        answer = service.post(response_timeout=2).result()
        answer.must_be(504, 504101, "GatewayTimeout")
        check(1.5 < time.monotonic() - started < 6, f"after {time.monotonic() - started:.1f} s")
        late = device.request()
        device.answer(late, 200)  # long after the service gave up: ignored

    with lab.step("requests of the same name at once, answered in another order"):
        posts = [service.post(name="Same") for _ in range(10)]
        requests = [device.request() for _ in posts]
        equal(len({request.rid for request in requests}), 10, "different request ids")
        for number, request in enumerate(reversed(requests)):
            device.answer(request, 200 if number % 2 else 400)
        accepted = [post.result().headers["iothub-streaming-is-accepted"] for post in posts]
        equal(sorted(accepted), ["False"] * 5 + ["True"] * 5, "answers")

    with lab.step("a request that cannot be: 400 or 404, and never a request to the device"):
        for path in (
            f"/twins/{DEVICE}/streams/a%2Fb?{API}",
            f"/twins/{DEVICE}/streams/?{API}",
            f"/twins/{DEVICE}/streams?{API}",
        ):
            status = service.send("POST", path).status
            check(status in (400, 404, 405), f"{path}: {status}")
        check(device.requests.empty(), "the device got a request")

    with lab.step("the same from any SDK: API versions, encoded ids, odd time limits"):
        for version in ("2018-08-30-preview", "2018-10-20-preview", "2018-06-30", "2020-09-30"):
            for limits in ({}, {"connect_timeout": "0.5", "response_timeout": "30.25"}, {"response_timeout": "600"}):
                posted = service.post(query=f"api-version={version}", **limits)
                device.answer(device.request(), 400)
                equal(posted.result().status, 200, f"status for {version} with {limits}")


def offline_and_unauthorised(lab, hub, service, parts):
    with lab.step("an offline device is 404103, an unknown one 404001"):
        started = time.monotonic()
        service.post(connect_timeout=1).result().must_be(404, 404103, "DeviceNotOnline")
        check(0.7 < time.monotonic() - started < 5, f"after {time.monotonic() - started:.1f} s")
        service.post(connect_timeout=0).result().must_be(404, 404103, "DeviceNotOnline")
        service.post(device="Nobody", connect_timeout=1).result().must_be(404, 404001, "DeviceNotFound")
        # Ids are case-sensitive.
        service.post(device=DEVICE.lower(), connect_timeout=1).result().must_be(404, 404001, "DeviceNotFound")

    with lab.step("a device that appears within the connect timeout gets the request"):
        posted = service.post(connect_timeout=20)
        with HandDevice(hub, parts) as device:
            device.answer(device.request(), 400)
            equal(posted.result().status, 200, "status")

    with lab.step("bad, expired, foreign and missing tokens are 401"):
        policy = parse(hub.service_string())
        key, name = policy["SharedAccessKey"], policy["SharedAccessKeyName"]
        device_key = parts["SharedAccessKey"]
        tokens = {
            "of a wrong key": sas(hub.address, base64.b64encode(os.urandom(32)).decode(), name),
            "that expired": sas(hub.address, key, name, life=-3600),
            "of an unknown policy": sas(hub.address, key, "nobody"),
            "of another host": sas("other.example.net", key, name),
            "of a device": sas(f"{hub.address}/devices/{DEVICE}", device_key),
            "without a signature": "SharedAccessSignature sr=x&se=9999999999&skn=service",
            "of nonsense": "nonsense",
            "that is missing": None,
        }
        for title, token in tokens.items():
            answer = service.post(token=token, connect_timeout=0).result()
            equal(answer.status, 401, f"status for a token {title}")
            check(answer.code in (401002, 401003), f"code for a token {title}: {answer.text}")

    with lab.step("a policy without the permission is refused"):
        for policy in ("registryRead", "device"):
            read = parse(hub.service_string(policy))
            answer = service.post(token=sas(hub.address, read["SharedAccessKey"], policy), connect_timeout=0).result()
            check(answer.status in (401, 403), f"status for {policy}: {answer.status}")

    with lab.step("a device's token in the dialects of three SDKs, and what is none"):
        resource = f"{hub.address}/devices/{DEVICE}"
        key = parts["SharedAccessKey"]
        upper = urllib.parse.quote(resource, safe="")
        lower = re.sub(r"%..", lambda match: match[0].lower(), upper)
        for written in (resource, upper, lower, f"{hub.host.upper()}/devices/{DEVICE}"):
            with HandDevice(hub, parts, password=sas(resource, key, written=written)):
                pass
        for title, password in {
            "of a wrong key": sas(resource, base64.b64encode(os.urandom(32)).decode()),
            "that expired": sas(resource, key, life=-3600),
            "of a prefix": sas(resource[:-1], key),
            "that is empty": "",
        }.items():
            refused = HandDevice(hub, parts, password=password, expect=5)
            refused.close()
            equal(refused.connack, 5, f"CONNACK for a password {title}")


# --- The legs


def legs(lab, hub, opened):
    with lab.step("the subprotocol is echoed as offered, or not at all"):
        for offered in (None, "MQTT", "mqtt", "AMQP", "anything"):
            with opened(device_subprotocol=offered) as (left, _):
                headers = {name.lower(): value for name, value in left.handshake_response.headers.items()}
                equal(headers.get("sec-websocket-protocol"), offered, "subprotocol in the answer")
                check("sec-websocket-extensions" not in headers, "an extension was accepted")
        with opened(service_subprotocol="MQTT") as (_, right):
            equal(right.headers.get("Sec-WebSocket-Protocol"), "MQTT", "the service's subprotocol")
            check("Sec-WebSocket-Extensions" not in right.headers, "compression was accepted")

    with lab.step("text stays text, empty messages are dropped, short ones stay whole"):
        with opened() as (left, right):
            left.send("a text")
            equal(right.recv(), "a text", "what arrived")
            left.send_binary(b"")
            left.send("")
            right.send(b"")
            left.send_binary(b"after")
            equal(right.recv(), b"after", "what arrived after empty messages")
            right.send("another text")
            opcode, data = left.recv_data()
            equal((opcode, data), (websocket.ABNF.OPCODE_TEXT, b"another text"), "what arrived")

    with lab.step("sixteen MiB in one message arrive in pieces of at most 65536"):
        with opened() as (left, right):
            data = os.urandom(16 * MIB)
            sender = threading.Thread(target=left.send_binary, args=(data,))
            sender.start()
            check(gather(right, len(data)) == data, "other bytes arrived")
            sender.join()

    with lab.step("pings are answered"):
        with opened() as (left, right):
            right.ping()
            left.ping("are you there")
            opcode, data = left.recv_data(control_frame=True)
            equal((opcode, data), (websocket.ABNF.OPCODE_PONG, b"are you there"), "answer to the device's ping")

    with lab.step("what was sent before a close is delivered, then 1000 for 1000"):
        with opened() as (left, right):
            left.send_binary(b"x" * 200_000)
            left.send_close(1000, b"done")
            check(gather(right, 200_000) == b"x" * 200_000, "other bytes arrived")
            equal(close_code(right), 1000, "close code at the service")
        with opened() as (left, right):
            right.send(b"y" * 100_000)
            right.close(1000, "done")
            check(b"".join(receive(left, 100_000)) == b"y" * 100_000, "other bytes arrived")
            equal(close_code(left), 1000, "close code at the device")

    with lab.step("an abrupt end, or another code, is 1011 at the other leg"):
        for title, end in (("a reset", reset), ("a lost connection", vanish), ("a close with 1001", going_away)):
            with opened() as (left, right):
                left.send_binary(b"z" * 1000)
                equal(right.recv(), b"z" * 1000, "what arrived before")
                end(left)
                equal(close_code(right), 1011, f"close code after {title}")
        with opened() as (left, right):
            right.vanish()
            equal(close_code(left), 1011, "close code at the device")

    with lab.step("a leg's data waits for the other leg"):
        request, answer = opened.accepted()
        with device_leg(hub, request.url, request.token) as left:
            left.send_binary(b"early")
            with service_leg(hub, answer) as right:
                equal(right.recv(), b"early", "what waited")

    with lab.step("the device's leg may come before its accept"):
        posted = opened.service.post()
        request = opened.device.request()
        with device_leg(hub, request.url, request.token) as left:
            left.send_binary(b"before the accept")
            opened.device.answer(request, 200)
            with service_leg(hub, posted.result()) as right:
                equal(right.recv(), b"before the accept", "what arrived")

    with lab.step("a token works once, for its stream and its leg only"):
        request, answer = opened.accepted()
        other_request, other_answer = opened.accepted()
        tampered = request.token[:-4] + ("AAAA" if request.token[-4:] != "AAAA" else "BBBB")
        for title, url, token in (
            ("of another stream", request.url, other_request.token),
            ("of another stream's service", answer.url, other_answer.token),
            ("that was changed", request.url, tampered),
            ("that is missing", request.url, None),
            ("of nonsense", request.url, "nonsense"),
            *([("of the other leg", answer.url, request.token)] if answer.url != request.url else []),
        ):
            equal(upgrade_status(hub, url, token), 401, f"status for a token {title}")
        with device_leg(hub, request.url, request.token) as left, service_leg(hub, answer) as right:
            equal(upgrade_status(hub, request.url, request.token), 401, "status for the device's token used again")
            equal(upgrade_status(hub, answer.url, answer.token), 401, "status for the service's token used again")
            both_ways(left, right)
        equal(upgrade_status(hub, request.url, request.token), 401, "status for a token of a stream that ended")
        with device_leg(hub, other_request.url, other_request.token) as left, service_leg(hub, other_answer) as right:
            both_ways(left, right)


class Opener:
    """Opens streams through one device: `with opened() as (device's leg, service's leg)`."""

    def __init__(self, hub, service, device):
        self.hub, self.service, self.device = hub, service, device

    def accepted(self):
        posted = self.service.post()
        request = self.device.request()
        self.device.answer(request, 200)
        return request, posted.result()

    @contextlib.contextmanager
    def __call__(self, device_subprotocol=None, service_subprotocol=None):
        request, answer = self.accepted()
        with device_leg(self.hub, request.url, request.token, device_subprotocol) as left:
            with service_leg(self.hub, answer, service_subprotocol) as right:
                yield left, right


@contextlib.contextmanager
def device_leg(hub, url, token, subprotocol=None):
    leg = websocket.create_connection(
        url,
        header=[f"Authorization: Bearer {token}"] if token else [],
        subprotocols=[subprotocol] if subprotocol else None,
        sslopt={"ca_certs": str(hub.ca)},
        timeout=TIMEOUT,
    )
    try:
        yield leg
    finally:
        leg.shutdown()


class ServiceLeg:
    """The service's leg, on an event loop of its own.

    The library's threaded client reads and writes one TLS connection from two threads, which OpenSSL does
    not allow: one opening in some thousand hangs, whatever the server is.
    """

    def __init__(self, hub, answer, subprotocol):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        try:
            self.connection = self._run(self._open(hub, answer, subprotocol))
        except BaseException:
            self._end()
            raise

    @staticmethod
    async def _open(hub, answer, subprotocol):
        return await websockets_connect(
            answer.url,
            additional_headers={"Authorization": f"Bearer {answer.token}"},
            subprotocols=[subprotocol] if subprotocol else None,
            ssl=ssl.create_default_context(cafile=hub.ca),
            open_timeout=TIMEOUT,
            close_timeout=2,
            max_size=None,
            proxy=None,
        )

    def _run(self, work):
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, TIMEOUT), self.loop).result(2 * TIMEOUT)

    def _end(self):
        self.loop.call_soon_threadsafe(self.loop.stop)

    @property
    def headers(self):
        return self.connection.response.headers

    def recv(self):
        return self._run(self.connection.recv())

    def send(self, data):
        self._run(self.connection.send(data))

    def ping(self):
        async def answered():
            await (await self.connection.ping())

        self._run(answered())

    def close(self, *why):
        self._run(self.connection.close(*why))

    def vanish(self):
        self.loop.call_soon_threadsafe(self.connection.transport.abort)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.close()
        finally:
            self._end()


def service_leg(hub, answer, subprotocol=None):
    return ServiceLeg(hub, answer, subprotocol)


def upgrade_status(hub, url, token):
    """The status that refuses a leg; 101 if it was accepted."""
    try:
        with device_leg(hub, url, token):
            return 101
    except websocket.WebSocketBadStatusException as refused:
        return refused.status_code


def both_ways(left, right):
    for size in (1, LARGEST_MESSAGE, 200_000):
        data = os.urandom(size)
        left.send_binary(data)
        check(gather(right, size) == data, f"other bytes at the service for a message of {size}")
        right.send(data)
        pieces = list(receive(left, size))
        check(b"".join(pieces) == data, f"other bytes at the device for a message of {size}")
        if size <= LARGEST_MESSAGE:
            equal(len(pieces), 1, f"messages for one of {size}")
        check(max(map(len, pieces)) <= LARGEST_MESSAGE, "a message is larger than the gateway's maximum")


def receive(left, size):
    """The messages of the device's leg until they hold `size` bytes."""
    while size > 0:
        opcode, data = left.recv_data()
        check(opcode == websocket.ABNF.OPCODE_BINARY, f"opcode {opcode} {data[:40]!r}")
        size -= len(data)
        yield data


def gather(right, size):
    data = bytearray()
    while len(data) < size:
        piece = right.recv()
        check(isinstance(piece, bytes), f"text arrived: {piece!r}")
        check(0 < len(piece) <= LARGEST_MESSAGE, f"a message of {len(piece)} bytes")
        data += piece
    return bytes(data)


def close_code(leg):
    if isinstance(leg, websocket.WebSocket):
        opcode, data = leg.recv_data(control_frame=True)
        while opcode == websocket.ABNF.OPCODE_PING:
            opcode, data = leg.recv_data(control_frame=True)
        equal(opcode, websocket.ABNF.OPCODE_CLOSE, f"opcode (with {data[:40]!r})")
        return struct.unpack("!H", data[:2])[0]
    try:
        data = leg.recv()
    except ConnectionClosed as closed:
        check(closed.rcvd, "the connection ended without a close message")
        return closed.rcvd.code
    raise harness.Failure(f"data instead of a close message: {data[:40]!r}")


def reset(leg):
    leg.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    leg.shutdown()


def vanish(leg):
    leg.shutdown()


def going_away(leg):
    leg.send_close(1001, b"going away")


# --- service-proxy with a third-party device


def official_echo_device(lab, hub, device):
    def once(change=lambda data: data):
        request = device.request()
        device.answer(request, 200)
        with device_leg(hub, request.url, request.token) as leg:
            opcode, data = leg.recv_data()
            leg.send(change(data), opcode)
            leg.send_close(1000, b"")
            with contextlib.suppress(Exception):
                leg.recv_data(control_frame=True)

    with lab.step("service-proxy echo with a device that closes after one message, as the official samples"):
        for text in ("hi", "Streaming data over a stream..."):
            played = Later(once)
            result = hub.echo("--stream", "TestStream", "--text", text, "--count", "1")
            equal(result.returncode, 0, f"exit code ({(result.stderr + result.stdout).strip()[-300:]})")
            played.result()

    with lab.step("service-proxy echo notices bytes that come back wrong"):
        played = Later(lambda: once(lambda data: bytes(reversed(data))))
        result = hub.echo("--stream", "TestStream", "--text", "not a palindrome", "--count", "1")
        check(result.returncode != 0, "exit code 0")
        played.result()

    with lab.step("a device that rejects, one that is silent: a clear line each"):
        played = Later(lambda: device.answer(device.request(), 400))
        result = hub.echo("--count", "1")
        check(result.returncode != 0 and re.search("(?i)reject", result.stderr), f"for a reject: {result.stderr!r}")
        played.result()
        result = hub.echo("--count", "1", "--response-timeout", "1")
        check(result.returncode != 0 and re.search("(?i)time|answer", result.stderr), f"for silence: {result.stderr!r}")
        device.request()


# --- Two connections of one identity; wrong ones


def takeover(lab, hub, service, parts):
    with lab.step("a second connection displaces the first, and a pending request survives"):
        with HandDevice(hub, parts) as first:
            posted = service.post(response_timeout=30)
            request = first.request()
            with HandDevice(hub, parts, "websockets") as second:
                harness.wait_until(lambda: first.ended, 5, "the first connection ends")
                second.answer(request, 200)
                answer = posted.result()
                equal(answer.headers.get("iothub-streaming-is-accepted"), "True", f"answer {answer.text}")
                with device_leg(hub, request.url, request.token) as left, service_leg(hub, answer) as right:
                    both_ways(left, right)
                    # A stream is not bound to the session that accepted it.
                    with HandDevice(hub, parts):
                        harness.wait_until(lambda: second.ended, 5, "the second connection ends")
                        both_ways(left, right)

    with lab.step("a device cannot answer another device's request"):
        other = parse(hub.create_device("Other"))
        with HandDevice(hub, parts) as device, HandDevice(hub, other) as foreign:
            posted = service.post(response_timeout=20)
            request = device.request()
            foreign.answer(request, 400)
            foreign.answer(request, 200)
            foreign.telemetry()
            device.answer(request, 200)
            equal(posted.result().headers.get("iothub-streaming-is-accepted"), "True", "answer")
            check(foreign.requests.empty(), "the other device got the request")


def connections(lab, hub, parts):
    with lab.step("telemetry, pings and repeated subscriptions on one connection"):
        with HandDevice(hub, parts, keep_alive=2) as device:
            for _ in range(3):
                device.subscribe("$iothub/streams/POST/#", 0)
                device.subscribe(f"devices/{DEVICE}/messages/devicebound/#", 1)
                device.telemetry("a=b&%24.mid=1", b"21.5")
            still = time.monotonic() + 5
            while time.monotonic() < still:
                check(not device.ended, "the connection ended within two keep-alives")
                time.sleep(0.1)

    with lab.step("the WebSocket for MQTT echoes the subprotocol, and wants one"):
        url = f"wss://localhost:{hub.https}/$iothub/websocket"
        for offered in ("mqtt", "MQTT"):
            leg = websocket.create_connection(
                url, subprotocols=[offered], sslopt={"ca_certs": str(hub.ca)}, timeout=TIMEOUT
            )
            headers = {name.lower(): value for name, value in leg.handshake_response.headers.items()}
            equal(headers.get("sec-websocket-protocol"), offered, "subprotocol in the answer")
            leg.shutdown()

    with lab.step("a client id of another device is refused"):
        refused = HandDevice(hub, parts, client_id="Other", expect=None)
        harness.wait_until(lambda: refused.ended or refused.connack is not None, TIMEOUT, "an answer")
        check(refused.connack != 0, "a foreign client id was let in")
        refused.close()

    with lab.step("garbage on each port disturbs nobody"):
        with HandDevice(hub, parts) as device:
            for port in (hub.https, hub.mqtts):
                for garbage in (b"GET / HTTP/1.0\r\n\r\n", b"\0" * 1000, os.urandom(5000)):
                    garble(port, garbage, None)
                    garble(port, garbage, hub.ca)
            device.telemetry()
            check(not device.ended, "the device's connection ended")


def garble(port, garbage, ca):
    with contextlib.suppress(OSError):
        connection = socket.create_connection(("localhost", port), timeout=2)
        if ca:
            connection = ssl.create_default_context(cafile=ca).wrap_socket(connection, server_hostname="localhost")
        with connection:
            connection.sendall(garbage)
            connection.settimeout(2)
            connection.recv(1000)


# --- The parts played by this suite


class Request:
    """A stream request as the C SDK takes it apart."""

    def __init__(self, topic):
        levels = topic.split("/")
        self.levels = len(levels)
        self.name = levels[3]
        properties = dict(item.split("=") for item in levels[4].removeprefix("?").split("&"))
        self.rid, self.token, self.ip = properties["$rid"], properties["$auth"], properties.get("$ip", "missing")
        self.url = urllib.parse.unquote(properties["$url"])


class HandDevice:
    """A device of paho-mqtt: one connection, subscribed to stream requests."""

    def __init__(self, hub, parts, transport="tcp", keep_alive=60, password=None, client_id=None, expect=0):
        device = parts["DeviceId"]
        resource = f"{parts['HostName']}/devices/{device}"
        options = {"client_id": client_id or device, "clean_session": False, "transport": transport}
        if hasattr(mqtt, "CallbackAPIVersion"):
            options["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION1
        self.client = mqtt.Client(**options)
        self.client.username_pw_set(
            f"{parts['HostName']}/{device}/?{API}&DeviceClientType=by-hand",
            sas(resource, parts["SharedAccessKey"]) if password is None else password,
        )
        self.client.tls_set(ca_certs=str(hub.ca))
        if transport == "websockets":
            self.client.ws_set_options(path="/$iothub/websocket")
        self.requests = queue.Queue()
        self.calls = queue.Queue()
        self.granted = {}
        self.connack = None
        self.ended = False
        self.client.on_connect = lambda client, data, flags, code: setattr(self, "connack", code)
        self.client.on_subscribe = lambda client, data, number, granted: self.granted.update({number: granted})
        self.client.on_message = lambda client, data, message: self.requests.put(Request(message.topic))
        self.client.connect("localhost", hub.https if transport == "websockets" else hub.mqtts, keep_alive)
        self.closing = False
        # Not paho's own loop: that one would connect again and displace its successor.
        self.thread = threading.Thread(target=self._loop, daemon=True)
        self.thread.start()
        if expect is None:
            return
        harness.wait_until(lambda: self.connack is not None or self.ended, TIMEOUT, "CONNACK")
        if expect == 0:
            equal(self.connack, 0, "CONNACK")
            for topic in ("$iothub/streams/POST/#", "$iothub/streams/res/#"):
                self.subscribe(topic, 0)

    def _loop(self):
        with contextlib.suppress(Exception):
            while not self.closing and self.client.loop(0.01) == mqtt.MQTT_ERR_SUCCESS:
                while not self.calls.empty():
                    call, result = self.calls.get()
                    result.set_result(call())
        self.ended = True

    def _call(self, function, *arguments, **options):
        """In the loop's thread: two threads must not write to one TLS connection."""
        result = concurrent.futures.Future()
        self.calls.put((lambda: function(*arguments, **options), result))
        harness.wait_until(lambda: result.done() or self.ended, TIMEOUT, "the connection's turn")
        check(result.done(), "the connection ended")
        return result.result()

    def subscribe(self, topic, qos):
        _, number = self._call(self.client.subscribe, topic, qos)
        harness.wait_until(lambda: number in self.granted, TIMEOUT, f"SUBACK for {topic}")
        check(self.granted[number][0] != 0x80, f"the subscription to {topic} was refused")

    def request(self):
        try:
            return self.requests.get(timeout=TIMEOUT)
        except queue.Empty:
            raise harness.Failure(f"no stream request; the connection {'ended' if self.ended else 'is up'}") from None

    def answer(self, request, status):
        self._call(self.client.publish, f"$iothub/streams/res/{status}/?$rid={request.rid}", qos=0)

    def telemetry(self, bag="", body=b""):
        """Sent and stored, and with it everything sent before: the PUBACK comes after it."""
        topic = f"devices/{self.client._client_id.decode()}/messages/events/{bag}"
        message = self._call(self.client.publish, topic, body, qos=1)
        harness.wait_until(message.is_published, TIMEOUT, "PUBACK")

    def close(self):
        self.closing = True
        self.thread.join(TIMEOUT)
        self.client.disconnect()
        self.client.loop(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Service:
    """The service's side over plain HTTPS."""

    def __init__(self, hub):
        self.hub = hub
        self.policy = parse(hub.service_string())
        self.context = ssl.create_default_context(cafile=hub.ca)

    def token(self):
        return sas(self.hub.address, self.policy["SharedAccessKey"], self.policy["SharedAccessKeyName"])

    def send(self, method, path, headers=(), token=""):
        connection = http.client.HTTPSConnection("localhost", self.hub.https, timeout=90, context=self.context)
        headers = {"Content-Length": "0", **dict(headers)}
        if token is not None:
            headers["Authorization"] = token or self.token()
        try:
            connection.request(method, path, headers=headers)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def post(self, device=DEVICE, name="TestStream", query=API, token="", connect_timeout=20, response_timeout=20):
        """Initiates a stream in a thread; `.result()` is its answer."""
        headers = {
            "iothub-streaming-connect-timeout-in-seconds": str(connect_timeout),
            "iothub-streaming-response-timeout-in-seconds": str(response_timeout),
        }
        path = f"/twins/{urllib.parse.quote(device, safe='')}/streams/{name}?{query}"
        return Later(lambda: self.send("POST", path, headers, token))


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.text = response.read().decode(errors="replace")
        self.url = self.headers.get("iothub-streaming-url")
        self.token = self.headers.get("iothub-streaming-auth-token")

    @property
    def code(self):
        """The number, from either family of bodies."""
        message = harness.json_of(self.text)["Message"]
        with contextlib.suppress(ValueError):
            return json.loads(message)["errorCode"]
        names = {
            "DeviceNotFound": 404001,
            "IotHubUnauthorizedAccess": 401002,
            "IotHubUnauthorized": 401003,
        }
        return names.get(re.match(r"ErrorCode:(\w+);", message)[1])

    def must_be(self, status, code, name):
        equal((self.status, self.code), (status, code), f"status and code ({self.text})")
        equal(self.headers.get("iothub-errorcode"), name, "iothub-errorcode")
        check("info" not in self.text, f"an info object: {self.text}")
        check(self.headers.get("content-type", "").startswith("application/json"), "content type")


class Later:
    def __init__(self, function):
        self.value = self.error = None
        self.thread = threading.Thread(target=self._run, args=(function,), daemon=True)
        self.thread.start()

    def _run(self, function):
        try:
            self.value = function()
        except Exception as error:  # given to the waiting caller
            self.error = error

    def result(self, timeout=75):
        self.thread.join(timeout)
        check(not self.thread.is_alive(), "no answer to the POST")
        if self.error:
            raise self.error
        return self.value


if __name__ == "__main__":
    harness.use_venv()
    harness.run(main)
