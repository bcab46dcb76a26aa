#!/usr/bin/env python3
"""Traffic for measurements, each kind in a process of its own, so that no measuring
thread waits for a copying one:

    traffic.py serve [HOST]              prints its port; answers all that follows
    traffic.py echo HOST PORT COUNT GAP  64-byte echoes, GAP ms apart: their times in ms
    traffic.py up HOST PORT SECONDS      sends all the time: what arrived, each 0.1 s
    traffic.py down HOST PORT SECONDS    receives all the time: the same
"""

import json
import os
import signal
import socket
import struct
import sys
import threading
import time

SLOT = 0.1
BLOCK = 256 * 1024
MESSAGE = 64


def serve(host="127.0.0.1"):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # finished threads are not joined
    listener = socket.create_server((host, 0), backlog=64)
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            with connection:
                one(connection)
            os._exit(0)
        connection.close()


def one(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    kind = connection.recv(1)
    if kind == b"e":
        while data := connection.recv(65536):
            connection.sendall(data)
    elif kind == b"u":
        connection.sendall(json.dumps(count(connection)).encode())
    elif kind == b"d":
        flood(connection)


def count(connection, seconds=float("inf")):
    """Bytes that arrive, in slots from the first one on."""
    slots, scrap, began = [], bytearray(BLOCK), None
    while received := connection.recv_into(scrap):
        now = time.monotonic()
        began = began or now
        if now - began > seconds:
            break
        number = int((now - began) / SLOT)
        slots.extend([0] * (number + 1 - len(slots)))
        slots[number] += received
    return slots


def flood(connection, seconds=float("inf")):
    block, until = bytes(BLOCK), time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            connection.send(block)
    except OSError:
        pass


def connect(host, port, kind):
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(kind)
    return connection


def echo(host, port, number, gap):
    connection, number, gap = connect(host, port, b"e"), int(number), float(gap) / 1000
    connection.sendall(bytes(MESSAGE))
    receive(connection)

    def send():
        due = time.monotonic()
        for _ in range(number):
            due += gap
            time.sleep(max(0, due - time.monotonic()))
            connection.sendall(struct.pack("!d", time.monotonic()).ljust(MESSAGE, b"."))

    threading.Thread(target=send, daemon=True).start()
    trips = []
    for _ in range(number):
        [sent] = struct.unpack_from("!d", receive(connection))
        trips.append((time.monotonic() - sent) * 1000)
    return trips


def receive(connection):
    data = b""
    while len(data) < MESSAGE:
        piece = connection.recv(MESSAGE - len(data))
        if not piece:
            sys.exit("the echo ended")
        data += piece
    return data


def up(host, port, seconds):
    connection = connect(host, port, b"u")
    flood(connection, float(seconds))
    connection.shutdown(socket.SHUT_WR)
    answer = b""
    while piece := connection.recv(65536):
        answer += piece
    return json.loads(answer)


def down(host, port, seconds):
    connection = connect(host, port, b"d")
    slots = count(connection, float(seconds))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    return slots


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    if kind == "serve":
        serve(*rest)
    else:
        json.dump({"echo": echo, "up": up, "down": down}[kind](*rest), sys.stdout)
