// The `eventsource` package from npm: EventSource for Node, reconnecting by itself. See report.mjs.

import { EventSource } from 'eventsource';
import { commandLine, print, untilStdinCloses } from './report.mjs';

const { url, names } = commandLine();
const source = new EventSource(url);
source.onopen = () => print({ kind: 'open' });
source.onerror = (error) => {
  print({ kind: 'error', detail: error.message ?? 'connection lost' });
  if (source.readyState === EventSource.CLOSED) print({ kind: 'closed' });
};
for (const name of names) {
  source.addEventListener(name, ({ type, lastEventId, data }) =>
    print({ kind: 'event', event: type, id: lastEventId, data }),
  );
}
untilStdinCloses();
