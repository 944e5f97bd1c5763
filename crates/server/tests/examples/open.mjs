// One of the example pages in headless Chromium, from a small file server of its own. See ../clients/report.mjs.
//
//     node open.mjs HUB --folder FOLDER [--query QUERY] [--tabs N]
//
// It prints what there is to see, whenever that changes:
//     {"kind":"view","state":…,"error":…,"rows":[…],"toasts":[…],"metrics":{…},"document":…,"edited":…}
// and {"kind":"error",…} for errors of the page. Each line that it reads is something to do:
//     {"click":SELECTOR}   {"fill":SELECTOR,"text":…}   {"screenshot":FILE,"width":…,"height":…,"dark":…}

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { chromium } from '../clients/node_modules/playwright-core/index.mjs';
import { print } from '../clients/report.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { folder: { type: 'string' }, query: { type: 'string', default: '' }, tabs: { type: 'string', default: '1' } },
});
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css' };
const server = createServer(async (request, response) => {
  const { pathname } = new URL(request.url, 'http://localhost');
  const file = join(values.folder, normalize(pathname === '/' ? '/index.html' : pathname));
  try {
    const content = await readFile(file);
    response.writeHead(200, { 'Content-Type': TYPES[extname(file)] }).end(content);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));

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
const hub = encodeURIComponent(positionals[0]);
const context = await browser.newContext();
const open = async tab => {
  const page = await context.newPage();
  page.on('pageerror', error => print({ kind: 'error', detail: error.message }));
  await page.exposeFunction('report', view => print({ ...view, tab }));
  await page.addInitScript(`addEventListener('DOMContentLoaded', ${observe})`);
  await page.goto(`http://127.0.0.1:${server.address().port}/?hub=${hub}&${values.query}`);
  return page;
};
// What is to be done is done in the first one.
const page = await open(0);
for (let tab = 1; tab < Number(values.tabs); tab++) await open(tab);

const lines = createInterface({ input: process.stdin });
lines.on('close', () => process.exit(0)); // playwright ends Chromium and removes its profile
for await (const line of lines) {
  const todo = JSON.parse(line);
  if (todo.click) await page.click(todo.click);
  if (todo.fill) await page.fill(todo.fill, todo.text);
  if (todo.screenshot) {
    const { screenshot: path, width, height, dark } = todo;
    await page.emulateMedia({ colorScheme: dark ? 'dark' : 'light' });
    await page.setViewportSize({ width, height });
    await page.screenshot({ path, animations: 'disabled' });
    print({ kind: 'screenshot', overflows: await page.evaluate(() => document.documentElement.scrollWidth > innerWidth) });
  }
}

// Runs in the page.
function observe() {
  const texts = selector => [...document.querySelectorAll(selector)].map(element => element.textContent);
  const text = selector => document.querySelector(selector)?.textContent;
  let was;
  const look = () => {
    const metrics = [...document.querySelectorAll('.metric')];
    const view = {
      kind: 'view',
      state: document.querySelector('[data-state]')?.dataset.state,
      error: text('#error:not([hidden])') ?? null,
      heading: text('h2'),
      rows: texts('li .message'),
      details: texts('li dd'),
      toasts: texts('.toast .message'),
      metrics: Object.fromEntries(metrics.map(tile => [tile.dataset.metric, tile.querySelector('.value').textContent])),
      document: document.querySelector('#document')?.value ?? null,
      edited: text('#edited') ?? null,
      badge: text('#badge:not([hidden])') ?? null,
    };
    if (JSON.stringify(view) === was) return;
    was = JSON.stringify(view);
    report(view);
  };
  const all = { subtree: true, childList: true, characterData: true, attributes: true };
  new MutationObserver(look).observe(document.body, all);
  look();
}
