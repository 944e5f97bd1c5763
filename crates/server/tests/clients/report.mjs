// What the JavaScript clients share: their command line, and the JSON lines that they print.
//
//     node <client>.mjs URL [--event NAME]... [--page URL]
//
// One line per thing that happens, written at once:
//     {"kind":"open"}   {"kind":"event","event":…,"id":…,"data":…}   {"kind":"error","detail":…}   {"kind":"closed"}
// A client runs until its standard input closes. After "closed" it will not reconnect.

import { writeSync } from 'node:fs';
import { parseArgs } from 'node:util';

// What an EventSource is told about only if it asks by name. (--event adds to them.)
const NAMES = ['message', 'gap', 'order_created', 'tick', 'end'];

export function commandLine() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { event: { type: 'string', multiple: true, default: [] }, page: { type: 'string' } },
  });
  if (positionals.length !== 1) {
    console.error('usage: node <client>.mjs URL [--event NAME]... [--page URL]');
    process.exit(2);
  }
  return { url: positionals[0], page: values.page, names: [...new Set([...NAMES, ...values.event])] };
}

export function print(line) {
  writeSync(1, JSON.stringify(line) + '\n');
}

export function untilStdinCloses() {
  process.stdin.on('end', () => process.exit(0));
  process.stdin.resume();
}
