"""`sseclient-py` over `requests`, as its README shows, in the reconnect loop of report.py.

What is left of an event when a response ends is handed out as if it were whole, and `retry:` and `id:` are seen only
where there is data in the same block.
"""

import requests
import sseclient

import report


def read_stream(url, position):
    with requests.get(url, stream=True, headers=position.headers()) as response:
        if response.status_code != 200:
            report.show("error", detail=f"status {response.status_code}")
            return False
        report.show("open")
        for event in sseclient.SSEClient(response).events():
            if event.id:
                position.last_event_id = event.id
            if event.retry:
                position.retry_s = int(event.retry) / 1000
            report.show("event", event=event.event, id=event.id or "", data=event.data)
    return True


report.run(read_stream, requests.RequestException)
