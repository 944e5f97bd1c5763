// Follows the metrics sample and prints what happens.
//
//     node client.mjs [URL]      the default is http://127.0.0.1:8089/events/watch
//
// Stop the hub's network, or the hub, and see it come back: the `eventsource` package reconnects by itself and tells the
// hub the last id that it saw, so that nothing is missed or seen twice.

import { EventSource } from 'eventsource';

// While `eventsource` waits to reconnect it does not keep Node running, and a program with nothing else to do would end.
setInterval(() => {}, 2 ** 30);

const url = process.argv[2] ?? 'http://127.0.0.1:8089/events/watch';
const source = new EventSource(url);
let lastId = '';

source.onopen = () => console.log(lastId ? `connected again, going on after ${lastId}` : `connected to ${url}`);

source.onerror = (error) => {
  const gone = source.readyState === EventSource.CLOSED;
  console.log(`${gone ? 'ended' : 'connection lost, trying again'} (${error.message ?? 'the stream ended'})`);
};

// An EventSource hands named events only to those who listen for that name.
const follow = (name, show) =>
  source.addEventListener(name, (event) => {
    lastId = event.lastEventId;
    console.log(`${name} ${show(JSON.parse(event.data))} (id ${event.lastEventId})`);
  });

follow('metric_created', ({ id, name, unit }) => `${name}${unit ? ` in ${unit}` : ''}: ${id}`);
follow('metric_reading_created', ({ metric_id, value, recorded_at }) => `${value} at ${recorded_at} of ${metric_id}`);
// The hub no longer has all that was missed: it was away for longer than the history lasts, or the hub was restarted.
// An application loads afresh here what it shows.
follow('gap', ({ from, reason }) => `after ${from}: ${reason}`);
