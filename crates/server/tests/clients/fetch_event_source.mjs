// `@microsoft/fetch-event-source` from npm, with the callbacks that its README shows. See report.mjs.
//
// Two habits of it shape what a hub may send: it remembers an id as soon as it has read the `id:` line, before the
// event is complete; and it hands every block to `onmessage`, also one without data.

// It is written for pages, and asks for no more of one than this.
globalThis.window ??= globalThis;
globalThis.document ??= { hidden: false, addEventListener() {}, removeEventListener() {} };

import { EventStreamContentType, fetchEventSource } from '@microsoft/fetch-event-source';
import { commandLine, print, untilStdinCloses } from './report.mjs';

class RetriableError extends Error {}
class FatalError extends Error {}

const { url } = commandLine();
untilStdinCloses();

await fetchEventSource(url, {
  async onopen(response) {
    if (response.ok && response.headers.get('content-type') === EventStreamContentType) {
      print({ kind: 'open' });
    } else if (response.status >= 400 && response.status < 500 && response.status !== 429) {
      throw new FatalError(`status ${response.status}`);
    } else {
      throw new RetriableError(`status ${response.status}, ${response.headers.get('content-type')}`);
    }
  },
  onmessage({ event, id, data }) {
    print({ kind: 'event', event: event || 'message', id, data });
  },
  onclose() {
    throw new RetriableError('the server ended the stream');
  },
  onerror(error) {
    print({ kind: 'error', detail: String(error.message) });
    if (error instanceof FatalError) throw error;
  },
}).catch((error) => {
  if (!(error instanceof FatalError)) throw error;
  print({ kind: 'closed' });
});
