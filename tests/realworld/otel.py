#!/usr/bin/env python3
"""Spans of OpenTelemetry: the programs, built with the feature `otel`, send them to a collector, which
reads them by the protocol's own definitions (opentelemetry-proto). A stream is one trace in all three."""

import http.server
import os
import shutil
import subprocess
import threading

import harness
from harness import DEVICE, ROOT, TARGET, check, equal, wait_until

try:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
    )
except ImportError:
    ExportTraceServiceRequest = None

PROGRAMS = ("stream-hub", "device-proxy", "service-proxy")


def main(lab):
    if ExportTraceServiceRequest is None:
        raise harness.Skip("opentelemetry-proto is not installed")
    harness.BIN_DIR = build()
    collector = Collector()
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}"}

    hub = harness.Hub(lab)
    hub.start(env=environment)
    target = harness.TcpServer(harness.echo_back)
    device = hub.device_proxy(
        hub.create_device(), "--target", f"web=127.0.0.1:{target.port}", env=environment, log_level="debug"
    )
    device.wait_for("connected; streams reach")
    service, [port] = hub.listen("web", arguments=["--session", "never"], env=environment, log_level="debug")

    with lab.step("a stream is one trace, with a span of each program below the hub's"):
        check(harness.echoes(port, os.urandom(100_000)), "other bytes came back")
        stream = service.wait_for(r"tunnel closed.* stream=([0-9a-f]{32})")[1]
        spans = wait_until(
            lambda: (found := collector.of(stream)) and len(found) >= 4 and found, 30, "four spans have come"
        )
        names = {(span.service, span.name) for span in spans}
        equal(
            names,
            {
                ("stream-hub", "stream"),
                ("stream-hub", "stream opening"),
                ("device-proxy", "forwarding"),
                ("service-proxy", "tunnel"),
            },
            "spans",
        )
        [root] = [span for span in spans if not span.parent]
        equal((root.service, root.name), ("stream-hub", "stream"), "the root")
        check(all(span.parent == root.id for span in spans if span is not root), "a span is not below the root")
        equal(root.attributes["device"], DEVICE, "device")
        equal(root.attributes["name"], "web", "name")
        check(root.attributes["to_device"] >= 100_000, "bytes")
        check(0 < root.end - root.start < 60e9, "times")

    with lab.step("what fails is marked as that"):
        hub.echo("--stream", "nothing", "--count", "1", log_level="info")
        failed = wait_until(lambda: collector.failed(), 30, "a failed span has come")
        equal(failed[0].attributes["name"], "nothing", "name")

    with lab.step("what has not been sent is sent at the end of the program"):
        check(harness.echoes(port, b"x"), "other bytes came back")
        count = len(collector.spans)
        for process in (service, device, hub.process):
            process.signal(15)
            equal(process.wait(), 0, f"exit code of {process.name}")
        check(len(collector.spans) >= count + 2, "the last spans are lost")

    with lab.step("no secret, and no collector: nothing is kept waiting"):
        check(not any(lab.holds_secret(body) for body in collector.bodies), "a secret is in a span")
        gone = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{harness.free_port()}"}
        hub.start(env=gone)
        device = hub.device_proxy(hub.create_device("Second"), "--echo", env=gone)
        equal(hub.echo("--count", "1", device="Second").returncode, 0, "exit code")
        hub.process.wait_for("spans were not taken by the collector")
        equal(hub.echo("--count", "1", device="Second").returncode, 0, "exit code of another one")
        hub.process.wait_for(r"DEBUG .*spans were not taken: ")
        equal(hub.process.output.count("spans were not taken by the collector"), 1, "warnings about it")


def build():
    """The programs with the feature; the folder that they are in."""
    cargo = harness.need("cargo")
    folder = harness.WORK / "otel-programs"
    features = ",".join(f"{package}/otel" for package in ("hub", "device-proxy", "service-proxy"))
    command = [cargo, "build", "--locked", "--workspace", "--bins", "--features", features]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    check(result.returncode == 0, f"the feature cannot be built: {result.stderr[-2000:]}")
    folder.mkdir(parents=True, exist_ok=True)
    for program in PROGRAMS:
        shutil.copy2(TARGET / "debug" / program, folder / program)
    return folder


class Span:
    def __init__(self, service, span):
        self.service, self.name = service, span.name
        self.trace, self.id, self.parent = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
        self.start, self.end = span.start_time_unix_nano, span.end_time_unix_nano
        self.is_failure = span.status.code == 2
        self.attributes = attributes(span.attributes)


def attributes(given):
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in given}


class Collector:
    """Takes what is posted to /v1/traces."""

    def __init__(self):
        self.spans, self.bodies = [], []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                is_right = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
                if is_right:
                    collector.take(body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200 if is_right else 400)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def take(self, body):
        request = ExportTraceServiceRequest.FromString(body)
        self.bodies.append(body)
        for resource in request.resource_spans:
            service = attributes(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                self.spans += [Span(service, span) for span in scope.spans]

    def of(self, trace):
        return [span for span in self.spans if span.trace == trace]

    def failed(self):
        return [span for span in self.spans if span.is_failure and span.service == "stream-hub"]


if __name__ == "__main__":
    harness.use_venv()
    harness.run(main)
