#!/usr/bin/env python3
"""An HTTP proxy that takes CONNECT from users with NTLM, also under the name Negotiate: a proxy as in
a Windows domain, with `pyspnego` as the server of the handshake.

    python3 tests/realworld/ntlm_proxy.py HOST PORT SCHEME USERS

SCHEME is NTLM or Negotiate; USERS is a file with lines DOMAIN:USER:PASSWORD. Each request that was
let through is printed, with the user.
"""

import base64
import os
import select
import socket
import sys
import threading

HEAD = 64 * 1024


def main():
    host, port, scheme, users = sys.argv[1:]
    os.environ["NTLM_USER_FILE"] = users
    listener = socket.create_server((host, int(port)), backlog=256)
    print("listening", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, scheme), daemon=True).start()


def serve(connection, scheme):
    import spnego  # a suite without it says what is missing before it starts this

    handshake = spnego.server(service="HTTP", protocol=scheme.lower())
    with connection:
        try:
            while request := head(connection):
                target, token = parse(request, scheme)
                if token is None:
                    # The handshake is bound to the connection, and begins anew.
                    handshake = spnego.server(service="HTTP", protocol=scheme.lower())
                    ask(connection, scheme)
                    continue
                answer = handshake.step(token)
                if not handshake.complete:
                    ask(connection, f"{scheme} {base64.b64encode(answer).decode()}")
                    continue
                print(f"{handshake.client_principal} {target}", flush=True)
                return forward(connection, target)
        except spnego.exceptions.SpnegoError as error:
            print(f"refused: {error}", flush=True)
            ask(connection, scheme)
        except OSError:
            pass  # the client has left


def head(connection):
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte or len(data) > HEAD:
            return ""
        data += byte
    return data.decode()


def parse(request, scheme):
    """What to connect to, and the message of the handshake."""
    line, *headers = request.splitlines()
    for header in headers:
        name, _, value = header.partition(": ")
        if name.lower() == "proxy-authorization" and value.lower().startswith(f"{scheme.lower()} "):
            return line.split()[1], base64.b64decode(value.split()[1])
    return line.split()[1], None


def ask(connection, challenge):
    page = "<html>Who are you?</html>"
    # In chunks, as some proxies send their pages.
    connection.sendall(
        f"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: {challenge}\r\n"
        f"Transfer-Encoding: chunked\r\n\r\n{len(page):x}\r\n{page}\r\n0\r\n\r\n".encode()
    )


def forward(near, target):
    host, _, port = target.rpartition(":")
    try:
        far = socket.create_connection((host.strip("[]"), int(port)), timeout=10)
    except OSError:
        near.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        return
    with far:
        far.settimeout(None)
        near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        other = {near: far, far: near}
        while True:
            for one in select.select([near, far], [], [])[0]:
                piece = one.recv(256 * 1024)
                if not piece:
                    return
                other[one].sendall(piece)


if __name__ == "__main__":
    main()
