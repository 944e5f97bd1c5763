// The browser's own EventSource, in headless Chromium. See report.mjs.
//
// It runs in a page of the hub's own (--page, by default /healthz of the same origin), as a dashboard's would.

import { chromium } from 'playwright-core';
import { commandLine, print, untilStdinCloses } from './report.mjs';

const { url, page: pageUrl = new URL('/healthz', url).href, names } = commandLine();
untilStdinCloses(); // playwright ends Chromium and removes its profile when the process exits

// A profile of its own, new at each start, is what `launch` gives.
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  headless: true,
  args: [
    '--no-sandbox', // the tests run as root in CI
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    // Without these it looks up its maker's hosts at every start.
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
});
const page = await browser.newPage();
await page.exposeFunction('report', print);
await page.goto(pageUrl);
await page.evaluate(subscribe, { url, names });

// Runs in the page.
function subscribe({ url, names }) {
  const source = new EventSource(url);
  window.source = source; // held, or it would be collected as garbage
  source.onopen = () => report({ kind: 'open' });
  source.onerror = () => {
    report({ kind: 'error', detail: 'connection lost' }); // a browser tells no more
    if (source.readyState === EventSource.CLOSED) report({ kind: 'closed' });
  };
  for (const name of names) {
    source.addEventListener(name, ({ type, lastEventId, data }) =>
      report({ kind: 'event', event: type, id: lastEventId, data }),
    );
  }
}
