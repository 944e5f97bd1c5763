// A page with many EventSources at once, over TLS with a certificate that signs itself. See ../clients/report.mjs.
//
//     node many.mjs URL --streams N
//
// The n-th is of topic t<n>. Each line says of which: {"kind":"open","topic":…}   {"kind":"event","event":"tick","topic":…}

import { parseArgs } from 'node:util';
import { chromium } from '../clients/node_modules/playwright-core/index.mjs';
import { print, untilStdinCloses } from '../clients/report.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { streams: { type: 'string' } },
});
untilStdinCloses();
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  headless: true,
  args: [
    '--no-sandbox', // the tests run as root in CI
    '--ignore-certificate-errors',
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
await page.goto(new URL('/healthz', positionals[0]).href);
await page.evaluate(count => {
  window.sources = Array.from({ length: count }, (_, n) => {
    const topic = `t${n}`;
    const source = new EventSource(`/events?topic=${topic}`);
    source.onopen = () => report({ kind: 'open', topic });
    source.onerror = () => report({ kind: 'error', topic, detail: 'connection lost' });
    source.addEventListener('tick', () => report({ kind: 'event', event: 'tick', topic }));
    return source;
  });
}, Number(values.streams));
