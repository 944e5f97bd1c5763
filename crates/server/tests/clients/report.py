"""What the Python clients share: their command line, the JSON lines that they print, and the reconnect loop.

    python <client>.py URL

Neither library reconnects, so their users write a loop like this one: it sends the last id that it saw as
Last-Event-ID and waits as long as `retry:` says. The lines are those of report.mjs beside this file.
"""

import json
import os
import sys
import threading
import time

RETRY_DEFAULT_S = 3.0  # what browsers take until told otherwise


def show(kind, **fields):
    print(json.dumps({"kind": kind, **fields}), flush=True)


class Position:
    """Where the client is in the stream, and how long to wait before it comes back."""

    def __init__(self):
        self.last_event_id = ""
        self.retry_s = RETRY_DEFAULT_S

    def headers(self):
        headers = {"Accept": "text/event-stream"}
        if self.last_event_id:
            headers["Last-Event-ID"] = self.last_event_id
        return headers


def exit_when_stdin_closes():
    def wait():
        # Without Python's own buffering: its lock, held here, would end in an abort if the main thread stopped first.
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os._exit(0)  # the main thread sits in a blocking read

    threading.Thread(target=wait, daemon=True).start()


def run(read_stream, lost):
    """Calls `read_stream(url, position)` for ever. It returns False once the server asked not to come back;
    an exception of the kinds `lost` is a connection that was lost."""
    exit_when_stdin_closes()
    (url,) = sys.argv[1:]
    position = Position()
    while True:
        try:
            if not read_stream(url, position):
                show("closed")
                break
            show("error", detail="the server ended the stream")
        except lost as error:
            show("error", detail=f"{type(error).__name__}: {error}")
        time.sleep(position.retry_s)
    threading.Event().wait()  # until standard input closes
