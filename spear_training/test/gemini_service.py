"""A service on this machine that speaks as much of Gemini's HTTP as the detector uses."""

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BOWL = {"box_2d": [100, 200, 300, 400], "label": "bowl"}


@dataclass
class Reply:
    """What one request gets."""

    status: int = 200
    body: str = ""
    delay_s: float = 0.0
    breaks: bool = False


def says(text, finish="STOP", **reply):
    """Return a reply in which the model says this."""
    content = {"parts": [{"text": text}], "role": "model"}
    body = {"candidates": [{"content": content, "finishReason": finish}]}
    return Reply(body=json.dumps(body), **reply)


def finds(*objects, **reply):
    """Return a reply with these objects."""
    return says(json.dumps(objects), **reply)


def fails(code, message, status="UNAVAILABLE"):
    """Return a reply with an error as Google's services write it."""
    error = {"code": code, "message": message, "status": status}
    return Reply(code, json.dumps({"error": error}))


class Service:
    """Replies in turn, the last one for ever; remembers what it was asked."""

    def __init__(self):
        self.replies = [finds(BOWL)]
        self.requests = []
        self.keys = []
        self.at_once = 0
        self._now = 0
        self._lock = threading.Lock()

    def reply(self, path, key, body):
        """Take the next reply."""
        with self._lock:
            self.requests.append((path, body))
            self.keys.append(key)
            self._now += 1
            self.at_once = max(self.at_once, self._now)
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        time.sleep(reply.delay_s)
        with self._lock:
            self._now -= 1
        return reply


@contextmanager
def running():
    """Run a service; yields it and its address."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = service.reply(self.path, self.headers.get("x-goog-api-key"), body)
            if reply.breaks:
                self.connection.close()
                return
            content = reply.body.encode()
            try:
                self.send_response(reply.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # the client has lost its patience

        def log_message(self, *args):
            """Keep the output of the tests clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield service, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
