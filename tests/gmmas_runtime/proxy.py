"""An HTTP proxy that passes TLS through (CONNECT), and remembers who was asked for."""

import contextlib
import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

CHUNK_BYTES = 65536


@dataclass
class Proxy:
    """A running proxy: `asked` is what every request was about, `headers` the lines that followed."""

    address: str
    asked: list[str] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)


class _Tunnel(socketserver.StreamRequestHandler):
    seen: Proxy
    refuses: bool

    def handle(self) -> None:
        self.seen.asked.append(self.rfile.readline().decode().rpartition(" ")[0])
        while (line := self.rfile.readline().decode().strip()) != "":
            self.seen.headers.append(line)
        if self.refuses:
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            return
        host, _, port = self.seen.asked[-1].split()[1].rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as far, contextlib.suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            other = {self.connection: far, far: self.connection}
            while True:
                for end in select.select(list(other), [], [], 10)[0]:
                    if not (data := end.recv(CHUNK_BYTES)):
                        return
                    other[end].sendall(data)


@contextmanager
def proxy(*, refuses: bool = False) -> Iterator[Proxy]:
    """Serve on loopback."""
    seen = Proxy("")
    handler = type("Handler", (_Tunnel,), {"seen": seen, "refuses": refuses})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        seen.address = f"127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join()
