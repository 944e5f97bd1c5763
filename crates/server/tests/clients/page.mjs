// The hub's own page, in headless Chromium. See report.mjs; the URL is the page's.
//
// Beside what the other clients print:
//     {"kind":"state","state":…,"text":…}        the state of its connection, whenever that changes
//     {"kind":"event",…,"topics":[…],"elements":[…]}   `elements`: the names of all elements that the row is made of
//     {"kind":"notice","text":…}                 a row of the page's own
//     {"kind":"result","good":…,"text":…}        what came of publishing
//     {"kind":"layout","width":…,"overflows":…,"figures":…}   once for each width, before it says "open"
// Each line that it reads is a form to fill in: {"topic":…,"event":…,"data":…}. It publishes that. A line {"token":…} is
// a token to subscribe with, in the field that the page shows where the hub asks for one.

import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';
import { commandLine, print } from './report.mjs';

const { url } = commandLine();
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
page.on('pageerror', error => print({ kind: 'error', detail: error.message }));
page.on('console', message => {
  if (message.text().includes('Content Security Policy')) print({ kind: 'error', detail: message.text() });
});
await page.exposeFunction('report', print);
await page.addInitScript(`addEventListener('DOMContentLoaded', ${observe})`);
const figures = page.waitForResponse(answer => answer.url().endsWith('/api/v1/stats'));
await page.goto(url);
await page.waitForSelector('.state[data-is=live], .state[data-is=over]');
if ((await figures).ok()) await page.waitForSelector('#figures:not([hidden])');
for (const width of [375, 1280]) {
  await page.setViewportSize({ width, height: 800 });
  print({ kind: 'layout', ...(await page.evaluate(layout)) });
}
print({ kind: 'open' });

const lines = createInterface({ input: process.stdin });
lines.on('close', () => process.exit(0)); // playwright ends Chromium and removes its profile
for await (const line of lines) {
  const form = JSON.parse(line);
  if (form.token !== undefined) {
    await page.fill('#token', form.token); // waits until it is shown
    await page.click('#subscribe button[type=submit]');
    continue;
  }
  for (const name of ['topic', 'event', 'data']) await page.fill(`#${name}`, form[name] ?? '');
  await page.click('#send');
  await page.waitForSelector('#result.good, #result.bad');
  const result = await page.evaluate(() => {
    const { className, textContent } = document.querySelector('#result');
    return { good: className === 'good', text: textContent };
  });
  print({ kind: 'result', ...result });
}

// These run in the page.

function observe() {
  const text = (row, selector) => row.querySelector(selector)?.textContent;
  const told = row => {
    if (row.classList.contains('notice')) return report({ kind: 'notice', text: row.textContent });
    report({
      kind: 'event',
      topics: [...row.querySelectorAll('.chip')].map(chip => chip.textContent),
      event: text(row, '.name') ?? 'message',
      id: text(row, '.id'),
      data: text(row, 'pre'),
      elements: [...new Set([...row.querySelectorAll('*')].map(element => element.localName))].sort(),
    });
  };
  const state = document.querySelector('.state');
  const rows = records => records.flatMap(record => [...record.addedNodes]).reverse().forEach(told);
  new MutationObserver(rows).observe(document.querySelector('#log'), { childList: true });
  let was;
  new MutationObserver(() => {
    if (state.dataset.is === was) return;
    was = state.dataset.is;
    report({ kind: 'state', state: was, text: document.querySelector('#state').textContent });
  }).observe(state, { attributes: true, childList: true, subtree: true });
}

function layout() {
  const { scrollWidth } = document.documentElement;
  const figures = !document.querySelector('#figures').hidden;
  return { width: innerWidth, overflows: scrollWidth > innerWidth, figures };
}
