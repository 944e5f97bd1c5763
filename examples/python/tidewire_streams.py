#!/usr/bin/env python3
"""Follow an event stream of a Tidewire hub, or broadcast to it.

    python tidewire_streams.py stream default
    python tidewire_streams.py broadcast default user_action "User logged in" '{"user_id": "42"}'
"""

import argparse
import json
import sys
import time

import requests
import sseclient

RETRY_DEFAULT_S = 3.0  # what browsers take until told otherwise
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 75  # the hub sends something every 30 s; silence for longer is a connection that is gone


def log(text):
    print(text, file=sys.stderr, flush=True)


def follow(hub, stream_id):
    """Yields every event of a stream, for ever. After a lost connection it carries on behind the last event it saw."""
    url = f"{hub}/api/v1/events/stream/{requests.utils.quote(stream_id, safe='')}"
    last_event_id = None
    retry_s = RETRY_DEFAULT_S
    while True:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        try:
            timeout = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
            with requests.get(url, stream=True, headers=headers, timeout=timeout) as response:
                if 400 <= response.status_code < 500:  # it would be the same the next time
                    sys.exit(f"refused: {reason(response)}")
                response.raise_for_status()
                for event in sseclient.SSEClient(response).events():
                    last_event_id = event.id or last_event_id
                    if event.retry:
                        retry_s = int(event.retry) / 1000
                    yield json.loads(event.data)
            log(f"the hub ended the stream; back in {retry_s:.1f} s")
        except requests.RequestException as error:
            log(f"disconnected ({type(error).__name__}); back in {retry_s:.1f} s")
        time.sleep(retry_s)


def broadcast(hub, stream_id, event_type, message, data=None):
    """Sends an event to a stream, or to all where `stream_id` is empty. Returns the hub's answer."""
    payload = {"stream_id": stream_id, "type": event_type, "message": message, "data": data or {}}
    response = requests.post(f"{hub}/api/v1/events/broadcast", json=payload, timeout=CONNECT_TIMEOUT_S)
    if not response.ok:
        sys.exit(f"refused: {reason(response)}")
    return response.json()


def reason(response):
    try:
        answer = response.json()
        return f"{response.status_code} {answer.get('message') or answer.get('detail')}"
    except (ValueError, AttributeError):
        return f"{response.status_code} {response.reason}"


def show(event):
    """What to do with an event: here, print it. The greeting says that the connection is there."""
    if event["type"] == "connection":
        log(f"connected: {event['message']}")
        return
    at = time.strftime("%H:%M:%S", time.localtime(event["timestamp"]))
    data = json.dumps(event["data"], ensure_ascii=False) if event.get("data") else ""
    print(f"{at} {event['type']}: {event['message']} {data}".rstrip(), flush=True)


def main():
    parser = argparse.ArgumentParser(description="Follow an event stream of a Tidewire hub, or broadcast to it.")
    parser.add_argument("--hub", default="http://127.0.0.1:8080", help="where the hub is (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    stream = commands.add_parser("stream", help="print the events of a stream as they come")
    stream.add_argument("id")
    send = commands.add_parser("broadcast", help="send an event")
    send.add_argument("id", help="the stream; '' for all of them")
    send.add_argument("type")
    send.add_argument("message")
    send.add_argument("data", nargs="?", type=json.loads, help="a JSON object")
    options = parser.parse_args()
    hub = options.hub.rstrip("/")
    if options.command == "stream":
        for event in follow(hub, options.id):
            show(event)
    else:
        answer = broadcast(hub, options.id, options.type, options.message, options.data)
        print(answer["message"])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except requests.ConnectionError:
        sys.exit("the hub can't be reached; is it running, and is --hub right?")
