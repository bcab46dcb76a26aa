"""Peers that send a hub more than it should have to bear, each in a process of its own:

    flood_clients.py half-open PORT... --count N
    flood_clients.py drip PORT... --count N --ca FILE
    flood_clients.py reconnect PORT --rate N --ca FILE --connection-string-file FILE
    flood_clients.py initiations PORT --count N --ca FILE --connection-string-file FILE --device ID
    flood_clients.py unread PORT --count N

They go on until standard input ends, or until they have sent what they were to send, and print one
JSON object at the end. A first line says when the flood is at its height.
"""

import argparse
import asyncio
import base64
import collections
import contextlib
import hashlib
import hmac
import itertools
import json
import os
import resource
import ssl
import struct
import sys
import time
import urllib.parse

ADDRESSES = 20  # so many hosts of 127.0.0.0/8: no address has too many connections


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("flood", choices=("half-open", "drip", "reconnect", "initiations", "unread"))
    add("ports", type=int, nargs="+")
    add("--count", type=int, default=1000)
    add("--rate", type=float, default=50)
    add("--ca")
    add("--connection-string-file")
    add("--device")
    return parser.parse_args()


def parts(file):
    """A connection string."""
    with open(file) as text:
        return dict(part.split("=", 1) for part in text.read().strip().split(";"))


def sas(resource_uri, key, policy=None):
    expiry = int(time.time()) + 3600
    uri = urllib.parse.quote_plus(resource_uri)
    digest = hmac.new(base64.b64decode(key), f"{uri}\n{expiry}".encode(), hashlib.sha256).digest()
    token = f"SharedAccessSignature sr={uri}&sig={urllib.parse.quote_plus(base64.b64encode(digest))}&se={expiry}"
    return token + (f"&skn={policy}" if policy else "")


def trust(args):
    context = ssl.create_default_context(cafile=args.ca)
    # Strangers need not know the hub's name.
    context.check_hostname = False
    return context


class Flood:
    def __init__(self, args):
        self.args, self.counts = args, collections.Counter()
        self.sources = itertools.cycle(f"127.0.0.{number}" for number in range(2, 2 + ADDRESSES))

    async def run(self):
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        flood = asyncio.create_task(getattr(self, self.args.flood.replace("-", "_"))())
        over = asyncio.create_task(reader.read())
        await asyncio.wait((flood, over), return_when=asyncio.FIRST_COMPLETED)
        if not over.done():
            print(json.dumps({"done": True, **self.counts}), flush=True)
            await over
        flood.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flood
        print(json.dumps(self.counts), flush=True)
        # Thousands of sockets: the system closes them faster.
        sys.stdout.flush()
        os._exit(0)

    def at_its_height(self):
        print(json.dumps({"ready": True, **self.counts}), flush=True)

    async def open(self, port, **tls):
        return await asyncio.open_connection("127.0.0.1", port, local_addr=(next(self.sources), 0), **tls)

    async def many(self, one):
        """`count` of them at a time, again and again, at most a thousand new ones a second."""
        ports = itertools.cycle(self.args.ports)
        free = asyncio.Semaphore(self.args.count)
        tasks, is_ready = set(), False
        while True:
            # Ten at once: timers are not that fine.
            for _ in range(10):
                await free.acquire()
                task = asyncio.create_task(self.guarded(one, next(ports)))
                tasks.add(task)
                task.add_done_callback(lambda task: (tasks.discard(task), free.release()))
                self.counts["begun"] += 1
                if not is_ready and self.counts["begun"] >= self.args.count:
                    is_ready = True
                    self.at_its_height()
            await asyncio.sleep(0.01)

    async def guarded(self, one, port):
        try:
            await one(port)
            self.counts["ended by the hub"] += 1
        except (OSError, ssl.SSLError, EOFError):
            self.counts["cut by the hub"] += 1

    async def half_open(self):
        """Connections on which nothing is sent."""

        async def one(port):
            reader, writer = await self.open(port)
            try:
                await reader.read(1)
            finally:
                writer.close()

        await self.many(one)

    async def drip(self):
        """TLS, then a byte each second of something that would be understood."""
        context = trust(self.args)
        starts = itertools.cycle((
            b"GET /devices?api-version=2020-09-30 HTTP/1.1\r\nHost: localhost\r\nX-Y: ",
            b"\x10\x80\x01\x00\x04MQTT\x04\xc2\x00\xf0\x00\x60",
            b"AMQP\x03\x01\x00\x00\x00\x00\x01\x00\x02\x01\x00\x00",
        ))

        async def one(port):
            reader, writer = await self.open(port, ssl=context)
            end = asyncio.create_task(reader.read())
            try:
                for byte in itertools.chain(next(starts), itertools.repeat(0x61)):
                    writer.write(bytes((byte,)))
                    await writer.drain()
                    if (await asyncio.wait((end,), timeout=1))[0]:
                        return
            finally:
                end.cancel()
                writer.close()

        await self.many(one)

    async def reconnect(self):
        """A device that connects again and again, whether it was answered or not."""
        device = parts(self.args.connection_string_file)
        host, identity = device["HostName"].split(":")[0], device["DeviceId"]
        password = sas(f"{host}/devices/{identity}", device["SharedAccessKey"])
        user = f"{host}/{identity}/?api-version=2020-09-30"
        text = lambda value: struct.pack(">H", len(value)) + value.encode()
        body = text("MQTT") + b"\x04\xc2\x00\xf0" + text(identity) + text(user) + text(password)
        length, rest = b"", len(body)
        while rest or not length:
            length += bytes((rest % 128 | (0x80 if rest > 127 else 0),))
            rest //= 128
        packet, context = b"\x10" + length + body, trust(self.args)

        async def one():
            try:
                reader, writer = await self.open(self.args.ports[0], ssl=context)
                writer.write(packet)
                answer = await asyncio.wait_for(reader.read(4), 60)
                self.counts[f"CONNACK {answer[3]}" if len(answer) == 4 else "no answer"] += 1
                writer.close()
            except (OSError, ssl.SSLError, asyncio.TimeoutError):
                self.counts["cut by the hub"] += 1

        tasks = set()
        for number in itertools.count():
            task = asyncio.create_task(one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            if number == self.args.rate:
                self.at_its_height()
            await asyncio.sleep(1 / self.args.rate)

    async def initiations(self):
        """A service that posts stream initiations, many at a time, and does not wait when it is told to."""
        service = parts(self.args.connection_string_file)
        host = service["HostName"].split(":")[0]
        token = sas(host, service["SharedAccessKey"], service["SharedAccessKeyName"])
        request = (
            f"POST /twins/{self.args.device}/streams/echo?api-version=2020-09-30 HTTP/1.1\r\n"
            f"Host: localhost\r\nAuthorization: {token}\r\nContent-Length: 0\r\n"
            "iothub-streaming-connect-timeout-in-seconds: 15\r\n"
            "iothub-streaming-response-timeout-in-seconds: 15\r\n\r\n"
        ).encode()
        numbers, context = iter(range(self.args.count)), trust(self.args)

        async def some():
            reader, writer = await self.open(self.args.ports[0], ssl=context)
            for _ in numbers:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode().lower().split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines[1:] if line)
                await reader.readexactly(int(headers.get("content-length", 0)))
                status = lines[0].split()[1]
                if status == "429" and int(headers["retry-after"]) < 1:
                    status = "429 without Retry-After"
                self.counts["rejected" if headers.get("iothub-streaming-is-accepted") == "false" else status] += 1
            writer.close()

        self.at_its_height()
        # Those that wait for the device hold their connections: more than may wait for it.
        results = await asyncio.gather(*(some() for _ in range(600)), return_exceptions=True)
        self.counts["lost"] += sum(isinstance(result, Exception) for result in results)

    async def unread(self):
        """Connections of service-proxy that send for ever and read nothing. The flood is at its height
        when the buffers on the way are full: what fills them is a load like any other."""

        async def one(port):
            self.counts["begun"] += 1
            _, writer = await self.open(port)
            writer.transport.pause_reading()
            while True:
                writer.write(bytes(65536))
                await asyncio.wait_for(writer.drain(), 3600)
                self.counts["KiB sent"] += 64

        streams = [asyncio.create_task(self.guarded(one, self.args.ports[0])) for _ in range(self.args.count)]
        before = 0
        while self.counts["KiB sent"] > before or not before:
            before = self.counts["KiB sent"]
            await asyncio.sleep(1)
        self.at_its_height()
        await asyncio.gather(*streams)


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(Flood(options()).run())
