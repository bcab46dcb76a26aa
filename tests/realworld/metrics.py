#!/usr/bin/env python3
"""Metrics, health checks and the log as JSON, as those read them who watch the programs: Prometheus
scrapes all three, has the alert rules loaded, and answers every query of the dashboard and of the
rules; promtool checks rules and expositions."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.parse

import harness
from harness import DEVICE, ROOT, check, equal, wait_until

CONTRIB = ROOT / "contrib"
RULES = CONTRIB / "prometheus" / "alerts.yml"
DASHBOARD = CONTRIB / "grafana" / "device-streams.json"
# What Grafana puts in the place of its variables.
VARIABLES = {"$__rate_interval": "10s", "$hub": ".*"}
DEVICES = 10


def main(lab):
    promtool, prometheus = harness.need("promtool", "prometheus")

    with lab.step("promtool takes the alert rules and their tests"):
        lab.run([promtool, "check", "rules", RULES])
        lab.run([promtool, "test", "rules", RULES.parent / "tests.yml"])
        lab.run([promtool, "check", "config", RULES.parent / "prometheus.yml"])

    hub = harness.Hub(lab)
    hub.start(log_level="debug", env={"STREAM_HUB_ADMIN": "0", "STREAM_HUB_LOG_FORMAT": "json"})
    target = harness.TcpServer(harness.echo_back)
    device = hub.device_proxy(
        hub.create_device(), "--target", f"web=127.0.0.1:{target.port}", "--target", "dead=127.0.0.1:1", "--echo",
        "--admin", "0", "--log-format", "json", log_level="debug",
    )  # fmt: skip
    service, [web, dead] = hub.listen(
        "web", "dead", arguments=["--admin", "127.0.0.1:0", "--log-format", "json"], log_level="debug"
    )
    programs = {"stream-hub": hub.process, "device-proxy": device, "service-proxy": service}
    ports = {name: admin_port(process) for name, process in programs.items()}
    watcher = Prometheus(lab, prometheus, ports)

    with lab.step("they live, and are ready"):
        for name, port in ports.items():
            equal(get(port, "/healthz"), (200, "alive\n"), name)
            wait_until(lambda: get(port, "/readyz") == (200, "ready\n"), 20, f"{name} is ready")

    with lab.step("promtool finds nothing at fault in what they count"):
        use(hub, web, dead)
        for name, port in ports.items():
            text = metrics(port)
            result = lab.run([promtool, "check", "metrics"], input=text, ok=False)
            equal((result.returncode, result.stdout + result.stderr), (0, ""), name)

    with lab.step(f"{DEVICES} devices with as many targets and refusals add no series"):
        many_devices(lab, hub, ports["stream-hub"])

    with lab.step("Prometheus scrapes all three"):
        wait_until(lambda: watcher.up() == 3, 30, "three targets are up")

    with lab.step("every query of the dashboard has data"):
        use(hub, web, dead)
        # A rate needs two scrapes.
        time.sleep(3)
        queries = dashboard_queries()
        check(len(queries) > 30, "too few queries were found in the dashboard")
        empty = [query for query in queries if not watcher.query(query)]
        check(not empty, f"no data for {len(empty)} of {len(queries)}: {empty[:3]}")
        print(f"        {len(queries)} queries")

    with lab.step("every query of an alert is answered, and none fires"):
        alerts = rules_queries(watcher)
        check(len(alerts) > 15, "too few rules are loaded")
        for query in alerts:
            watcher.query(query)
        firing = [alert["labels"]["alertname"] for alert in watcher.get("alerts")["alerts"] if alert["state"] == "firing"]
        check(not firing, f"firing: {firing}")
        print(f"        {len(alerts)} rules")

    with lab.step("what they count is what was done"):
        before = metrics(ports["service-proxy"]), metrics(ports["device-proxy"])
        size = 300_000
        check(harness.echoes(web, os.urandom(size)), "other bytes came back")
        wait_until(
            lambda: value(metrics(ports["service-proxy"]), 'service_proxy_bytes_total{direction="to_device"}')
            >= value(before[0], 'service_proxy_bytes_total{direction="to_device"}') + size,
            20, "service-proxy counts the bytes",
        )  # fmt: skip
        after = metrics(ports["device-proxy"])
        for direction in ("to_target", "from_target"):
            name = f'device_proxy_bytes_total{{direction="{direction}"}}'
            check(value(after, name) >= value(before[1], name) + size, f"{name} counts less than was carried")
        check(value(metrics(ports["stream-hub"]), 'stream_hub_relayed_bytes_total{direction="to_device"}') >= size,
              "the hub counts less than was carried")  # fmt: skip
        check(value(after, "device_proxy_target_failures_total") > 0, "the dead target was not counted")

    with lab.step("a slow-loris does not keep Prometheus out"):
        slow_loris(ports["stream-hub"])

    with lab.step("the admin listener gives nothing to a page in a browser, and listens here alone"):
        status, _ = get(ports["stream-hub"], "/metrics", host="rebound.example")
        equal(status, 403, "status for another host name")
        for program in programs:
            result = harness.output_of(program, *(["serve"] if program == "stream-hub" else []), "--admin", "0.0.0.0:0")
            equal(result.returncode, 2, f"exit code of {program} with --admin on all addresses")
            check("open:0.0.0.0:0" in result.stderr, f"it does not say how to: {result.stderr!r}")

    with lab.step("device-proxy is not ready while its hub is down, and lives"):
        hub.process.signal(signal.SIGKILL)
        hub.process.wait()
        wait_until(lambda: get(ports["device-proxy"], "/readyz")[0] == 503, 30, "not ready")
        check("hub" in get(ports["device-proxy"], "/readyz")[1], "no reason is given")
        equal(get(ports["device-proxy"], "/healthz")[0], 200, "status of /healthz")
        equal(get(ports["service-proxy"], "/readyz")[0], 200, "status of service-proxy's /readyz")

    with lab.step("every line of their logs is a JSON object with its fields"):
        for name, process in programs.items():
            json_lines(name, process)

    with lab.step("a hub that stops says so first"):
        stopping(lab, hub)


def admin_port(process):
    return int(process.wait_for(r"http://127\.0\.0\.1:(\d+)")[1])


def get(port, path, host=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def metrics(port):
    status, text = get(port, "/metrics")
    equal(status, 200, "status of /metrics")
    return text


def value(text, series):
    for line in text.splitlines():
        if line.startswith(series + " "):
            return float(line.split()[-1])
    return 0.0


def series(text):
    return {line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")}


def use(hub, web, dead):
    """A little of everything that is counted."""
    check(harness.echoes(web, os.urandom(100_000)), "other bytes came back")
    # It is reset, which may come as early as the connection itself.
    with contextlib.suppress(ConnectionError), harness.connect(dead) as connection:
        connection.sendall(b"x")
        equal(connection.recv(1), b"", "what a dead target sends")
    hub.echo("--count", "1", log_level="info")
    hub.echo("--count", "1", device="Nobody", log_level="info")
    options = [harness.binary("service-proxy"), *hub.service_options()]
    subprocess.run([*options, "method", DEVICE, "ping"], capture_output=True, timeout=60, check=True)


def many_devices(lab, hub, port):
    string = hub.create_device("Fleet-0")
    wrong = re.sub("SharedAccessKey=.*", "SharedAccessKey=" + "A" * 43 + "=", string)

    def connect(number):
        hub.cli("device", "create", f"Fleet-{number}") if number else None
        options = ["--echo", "--log-level", "off"]
        good = hub.cli("device", "connection-string", f"Fleet-{number}")
        process = hub.device_proxy(good, *options, name=f"fleet-{number}", log_level=None)
        labels = 'stream_hub_device_sessions{transport="mqtt-ws"}'
        wait_until(lambda: value(metrics(port), labels) >= 2, 20, "the device is counted")
        hub.echo("--stream", f"target-{number}", "--count", "1", device=f"Fleet-{number}", log_level="off")
        file = lab.secret_file(f"wrong-{number}", wrong.replace("Fleet-0", f"Fleet-{number}"))
        harness.output_of("device-proxy", "--connection-string-file", file, "--ca-file", hub.ca, *options)
        process.stop()
        wait_until(lambda: value(metrics(port), labels) < 2, 20, "the device's end is counted")

    connect(0)
    before = series(metrics(port))
    for number in range(1, DEVICES):
        connect(number)
    text = metrics(port)
    equal(series(text) - before, set(), "further series")
    check("Fleet-" not in text and "target-" not in text, "a name of a device or target is in the metrics")
    check(value(text, 'stream_hub_auth_refused_total{who="device",reason="wrong_key"}') >= DEVICES, "refusals")


class Prometheus:
    """The real one, which scrapes every second."""

    def __init__(self, lab, program, ports):
        self.port = harness.free_port()
        jobs = [
            {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for name, port in ports.items()
        ]
        config = lab.folder / "prometheus.yml"
        # JSON is YAML.
        config.write_text(json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": jobs,
        }))  # fmt: skip
        self.process = lab.start("prometheus", [
            program, f"--config.file={config}", f"--storage.tsdb.path={lab.folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ])  # fmt: skip

    def get(self, path, **arguments):
        status, text = get(self.port, f"/api/v1/{path}?{urllib.parse.urlencode(arguments)}")
        answer = harness.json_of(text)
        check(status == 200 and answer["status"] == "success", f"{arguments or path}: {answer.get('error', text)}")
        return answer["data"]

    def query(self, query):
        return self.get("query", query=query)["result"]

    def up(self):
        try:
            return sum(float(sample["value"][1]) for sample in self.query("up"))
        except OSError:
            # It has only begun.
            return 0


def dashboard_queries():
    dashboard = harness.json_of(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    for name, instead in VARIABLES.items():
        queries = [query.replace(name, instead) for query in queries]
    left = [query for query in queries if "$" in query]
    check(not left, f"a variable without a value: {left[:1]}")
    return queries


def rules_queries(watcher):
    groups = watcher.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    faults = [rule["lastError"] for rule in rules if rule.get("lastError")]
    check(not faults, f"rules that cannot be evaluated: {faults[:2]}")
    return [rule["query"] for rule in rules]


def slow_loris(port):
    held = []
    try:
        for _ in range(200):
            connection = socket.create_connection(("127.0.0.1", port), timeout=20)
            connection.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
            held.append(connection)
        metrics(port)
        # The last of them is closed, too.
        held[-1].settimeout(20)
        answer = held[-1].recv(1000)
        check(answer.startswith(b"HTTP/1.1 408 "), f"it got {answer[:40]!r}")
    finally:
        for connection in held:
            connection.close()


def json_lines(name, process):
    lines = process.stderr.splitlines()
    read = [harness.json_of(line) for line in lines]
    check(read, f"{name} logs nothing")
    for line in read:
        check({"timestamp", "level", "message"} <= line.keys(), f"{name}: {line}")
        check(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"]), f"{name}: {line}")
    wanted = {
        "stream-hub": ("stream accepted", {"device", "name", "stream", "policy", "peer"}),
        "device-proxy": ("connection opened", {"name", "target", "session", "connection"}),
        "service-proxy": ("tunnel opened", {"device", "name", "session", "connection", "peer"}),
    }
    message, fields = wanted[name]
    found = [line for line in read if line["message"] == message]
    check(found, f"{name} has no line `{message}`")
    missing = fields - found[0].keys()
    check(not missing, f"{name}: {missing} not in {found[0]}")


def stopping(lab, hub):
    hub.start(log_level="info", env={"STREAM_HUB_ADMIN": "0"})
    port = admin_port(hub.process)
    echo = lab.start_ours(
        "service-proxy", *hub.service_options(), "echo", DEVICE, "--count", "0", "--interval", "0.2",
        name="echo-while-stopping", log_level="info",
    )  # fmt: skip
    echo.wait_for("seq=2", timeout=40)
    hub.process.signal(signal.SIGTERM)
    status, text = wait_until(
        lambda: (answer := get(port, "/readyz"))[0] == 503 and answer, 10, "the hub is not ready any more"
    )
    check("stopping" in text, f"it says {text!r}")
    equal(get(port, "/healthz")[0], 200, "status of /healthz")
    hub.process.wait(30)


harness.run(main)
