"""redis: the requests that a user has left today."""

import socketserver
import threading

import redis
import redis.backoff
import redis.retry

URL = ""


class Store(socketserver.StreamRequestHandler):
    """Answers GET with 7, and all other commands with an error."""

    def handle(self):
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                words.append(self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2])
            self.wfile.write(b"$1\r\n7\r\n" if words[0] == b"GET" else b"-ERR unknown command\r\n")


def prepare(workdir):
    global URL
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Store)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    URL = f"redis://127.0.0.1:{server.server_address[1]}"
    yield
    server.shutdown()
    server.server_close()


def used(user):
    once = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    with redis.Redis.from_url(URL, protocol=2, retry=once, socket_timeout=5) as store:
        try:
            return int(store.get(f"used:{user}") or 0)
        except redis.ConnectionError:
            return 0


def pipeline(workdir):
    return 10 - used("alice")
