#!/usr/bin/env bash
# gunicorn 27's own asgi worker and --statsd-host, from which statsd_exporter makes Prometheus metrics.
#
# Guessed: gunicorn.requests, their durations and statuses are sent whichever worker serves, as they were for years with each of
# the others. Seen: sync sends them; asgi sends none unless an access log is configured, if only to /dev/null: it makes up what the
# log and the statistics share for the log alone. gunicorn.workers and gunicorn.log.exception do arrive, so that the target looks
# alive without traffic, and a service that is moved from the sync worker to it loses its request rate without an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check gunicorn==27.0.1
cat > "$folder/app.py" << 'PYTHON'
def sync(environ, start_response):
    start_response("200 OK", [("content-length", "2")])
    return [b"ok"]


async def asgi(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
PYTHON
"$folder/venv/bin/gunicorn" --version
"$folder/venv/bin/python" - "$folder" << 'PYTHON'
import contextlib
import socket
import subprocess
import sys
import time
import urllib.request

statsd = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
statsd.bind(("127.0.0.1", 0))


def serve(worker, *more):
    with socket.create_server(("127.0.0.1", 0)) as free: place = "127.0.0.1:{1}".format(*free.getsockname())
    more += "--statsd-host", "127.0.0.1:{1}".format(*statsd.getsockname()), "--log-level", "critical", "--no-control-socket"
    command = [f"{sys.argv[1]}/venv/bin/gunicorn", "-k", worker, "-b", place, *more, f"app:{worker}"]
    server = subprocess.Popen(command, cwd=sys.argv[1])
    answered, deadline = 0, time.monotonic() + 60
    while answered < 5 and time.monotonic() < deadline and server.poll() is None:
        try:
            answered += urllib.request.urlopen(f"http://{place}", timeout=10).status == 200
        except OSError:
            time.sleep(0.1)
    server.terminate(), server.wait()
    statsd.setblocking(False)
    lines = []
    with contextlib.suppress(BlockingIOError):
        while True:
            lines.append(statsd.recv(999).decode())
    return [sum(line.startswith(f"gunicorn.{name}:") for line in lines) for name in ("requests", "workers")]


seen = [serve("sync"), serve("asgi"), serve("asgi", "--access-logfile", "/dev/null")]
for how, (requests, workers) in zip(("sync", "asgi", "asgi, access log"), seen, strict=True):
    print(f"{how:<17} expected: 5 requests, seen: {requests} (gunicorn.workers {'sent' if workers else 'missing'})")
assert [requests for requests, workers in seen if workers] == [5, 0, 5], "the behaviour has changed"
PYTHON
