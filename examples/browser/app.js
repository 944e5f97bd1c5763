// A page that follows three streams of a hub over one connection. No build, no libraries.

const hub = (new URLSearchParams(location.search).get('hub') ?? 'http://127.0.0.1:8080').replace(/\/$/, '');
const DOCUMENT = 'document_123';
const TOASTS_MAX = 4;
const RECEIVED_MAX = 5;
const TOAST_MS = 6_000;
const POINTS_MAX = 60;
/** How long to wait where the browser has given up, which it does on an answer that is an error. */
const REOPEN_MS = 3_000;

const find = id => document.getElementById(id);
const me = crypto.getRandomValues(new Uint32Array(1))[0].toString(36);
find('hub').textContent = hub;

// The connection

/** What to do with an event of each stream. */
const streams = { system: showMetrics, notifications: notify, [DOCUMENT]: applyChange };

connect('');

function connect(lastEventId) {
  // A stream is a topic too, and one subscription may name many. Three times `/api/v1/events/stream/…` would do as well, but
  // a browser opens six connections to a host, and these count in all its windows together.
  const query = new URLSearchParams(Object.keys(streams).map(id => ['topic', `stream:${id}`]));
  if (lastEventId) query.set('last_event_id', lastEventId);
  const source = new EventSource(`${hub}/events?${query}`);

  source.onopen = () => showState('connected', 'Connected');
  source.onmessage = message => {
    lastEventId = message.lastEventId || lastEventId;
    const event = JSON.parse(message.data);
    // An event to all streams names none; this page shows it as a notification.
    (streams[event.stream_id] ?? notify)(event);
  };
  source.addEventListener('gap', () => showError('Some events are missing: the hub no longer has them.'));
  source.onerror = () => {
    showState('disconnected', 'Disconnected');
    // A lost connection comes back by itself, and where it was; one that was refused does not.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, REOPEN_MS, lastEventId);
  };
}

function showState(state, text) {
  find('state').dataset.state = state;
  find('state').textContent = text;
}

function showError(text) {
  find('error').textContent = text;
  find('error').hidden = !text;
}

async function broadcast(stream_id, type, message, data) {
  try {
    const response = await fetch(`${hub}/api/v1/events/broadcast`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ stream_id, type, message, data }),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.message ?? answer.detail);
    showError('');
    return true;
  } catch (error) {
    showError(`Not sent: ${error.message}`);
    return false;
  }
}

// Metrics

const points = new Map();

function showMetrics({ type, data }) {
  if (type !== 'metric_update') return;
  for (const [name, value] of Object.entries(data ?? {})) {
    if (typeof value === 'number') showMetric(name, value);
  }
}

function showMetric(name, value) {
  const values = [...(points.get(name) ?? []), value].slice(-POINTS_MAX);
  points.set(name, values);
  let tile = find('metrics').querySelector(`[data-metric="${CSS.escape(name)}"]`);
  if (!tile) {
    tile = add(find('metrics'), 'div', 'metric');
    tile.dataset.metric = name;
    add(tile, 'div', 'name').textContent = name.replace(/_(percent|bytes)$/, '').replaceAll('_', ' ');
    add(tile, 'div', 'value');
    tile.append(chart());
    find('dashboard').querySelector('.hint').hidden = true;
  }
  tile.querySelector('.value').textContent = withUnit(name, value);
  const [low, high] = name.endsWith('_percent') ? [0, 100] : [Math.min(...values), Math.max(...values)];
  const height = v => (high > low ? 27 - (24 * (v - low)) / (high - low) : 15);
  const line = values.map((v, n) => `${(100 * n) / Math.max(values.length - 1, 1)},${height(v)}`);
  tile.querySelector('polyline').setAttribute('points', line.join(' '));
}

/** A metric's unit is the end of its name. */
function withUnit(name, value) {
  const text = (number, unit) => `${number.toLocaleString('en', { maximumFractionDigits: 1 })}${unit}`;
  if (name.endsWith('_percent')) return text(value, ' %');
  if (!name.endsWith('_bytes')) return text(value, '');
  return value < 1e9 ? text(value / 1e6, ' MB') : text(value / 1e9, ' GB');
}

function chart() {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 100 30');
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.append(document.createElementNS(svg.namespaceURI, 'polyline'));
  return svg;
}

// Notifications

function notify({ type, message, data }) {
  if (type === 'stream_started') return;
  const row = document.createElement('li');
  row.textContent = message;
  find('received').prepend(row);
  while (find('received').children.length > RECEIVED_MAX) find('received').lastChild.remove();
  const toast = add(find('toasts'), 'div', 'toast');
  add(toast, 'div', 'message').textContent = message;
  const details = Object.entries(data ?? {}).map(([name, value]) => `${name}: ${typeof value === 'string' ? value : JSON.stringify(value)}`);
  add(toast, 'div', 'detail').textContent = details.join(' · ');
  while (find('toasts').children.length > TOASTS_MAX) find('toasts').firstChild.remove();
  setTimeout(() => toast.remove(), TOAST_MS);
}

find('notify').onsubmit = async event => {
  event.preventDefault();
  const { message } = event.target.elements;
  if (await broadcast('notifications', 'notification', message.value, { from: me })) message.value = '';
};

// The document. Whoever writes last wins; an editor for several at a time needs operations that can be merged.

const editor = find('document');
let sending;

load();

/** The document as it is: its newest change, if the hub still has one. */
async function load() {
  const history = `${hub}/topics/${encodeURIComponent(`stream:${DOCUMENT}`)}/events`;
  try {
    let newest;
    for (let since = 'earliest'; since; ) {
      const response = await fetch(`${history}?limit=1000&since=${encodeURIComponent(since)}`);
      if (!response.ok) return;
      const page = await response.json();
      newest = page.events.at(-1) ?? newest;
      since = page.next;
    }
    if (newest && !editor.value) applyChange(JSON.parse(newest.data));
  } catch (error) {
    showError(`The document can't be loaded: ${error.message}`);
  }
}

editor.oninput = () => {
  clearTimeout(sending);
  sending = setTimeout(() => broadcast(DOCUMENT, 'document_change', 'Document changed', { author: me, text: editor.value }), 150);
};

function applyChange({ type, data, timestamp }) {
  if (type !== 'document_change') return;
  const mine = data.author === me;
  const when = new Date(timestamp * 1_000).toLocaleTimeString();
  find('edited').textContent = `Last change at ${when} by ${mine ? 'you' : data.author}.`;
  if (mine || typeof data.text !== 'string' || data.text === editor.value) return;
  const { selectionStart, selectionEnd } = editor;
  editor.value = data.text;
  editor.setSelectionRange(selectionStart, selectionEnd);
}

function add(parent, element, className) {
  const child = document.createElement(element);
  child.className = className;
  parent.append(child);
  return child;
}
