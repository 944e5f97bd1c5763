"""`httpx-sse` with the recipe of its documentation for reconnecting, in the loop of report.py.

The recipe takes `sse.id` of every event for the last id, and a new response starts without one: a first event without
an `id:` after a reconnect makes it forget where it was. Any block with an id, an event name or `retry:` is handed out, also
one without data; once an id was seen, so is every blank line.
"""

import httpx
import httpx_sse

import report

# Without this a stream that is quiet for five seconds is given up: httpx's default.
TIMEOUT = httpx.Timeout(5.0, read=None)


def read_stream(url, position):
    with httpx.Client(timeout=TIMEOUT) as client:
        with httpx_sse.connect_sse(client, "GET", url, headers=position.headers()) as source:
            if source.response.status_code != 200:
                report.show("error", detail=f"status {source.response.status_code}")
                return False
            report.show("open")
            for event in source.iter_sse():
                position.last_event_id = event.id
                if event.retry is not None:
                    position.retry_s = event.retry / 1000
                report.show("event", event=event.event, id=event.id, data=event.data)
    return True


# A response cut short is a RemoteProtocolError, which the recipe's ReadError alone would not catch.
report.run(read_stream, httpx.TransportError)
