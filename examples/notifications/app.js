// A bell with a badge, a list and toasts, for one user. `?hub=` names the hub, `?user=` who it is: a hub without
// authentication takes that word for it; elsewhere the browser's cookie says who it is, and `?user=` is not needed.

const address = new URLSearchParams(location.search);
const hub = (address.get('hub') || 'http://127.0.0.1:8080').replace(/\/$/, '');
const user = address.get('user') || 'bob';
const api = (path, options) =>
  fetch(`${hub}/api/v1/notifications${path}${path.includes('?') ? '&' : '?'}user=${encodeURIComponent(user)}`, options);
const TOASTS_MAX = 4;
const $ = id => document.getElementById(id);

/** What is shown, by id. The newest comes first. */
const shown = new Map();

$('user').textContent = user;
$('try').textContent =
  `curl ${hub}/api/v1/notifications -H 'Content-Type: application/json' \\\n` +
  `  -d '{"recipient_id": "${user}", "type": "story_assigned", "title": "Ann assigned you a story"}'`;

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function row(notification) {
  const item = document.createElement('li');
  item.classList.toggle('unread', !notification.read);
  const texts = document.createElement('div');
  // A link comes from whoever may notify; only addresses of pages are followed.
  const isPage = /^(https?:\/\/|\/)/.test(notification.link ?? '');
  const title = element(isPage ? 'a' : 'span', 'message', notification.title ?? JSON.stringify(notification));
  if (isPage) title.href = notification.link;
  texts.append(title);
  if (notification.body) texts.append(element('div', 'body', notification.body));
  const at = element('time', '', notification.created_at ? new Date(notification.created_at).toLocaleTimeString() : '');
  item.append(texts, at);
  if (!notification.read && notification.id) {
    const button = element('button', '', 'Read');
    button.onclick = () => act(`/${notification.id}/read`);
    item.append(button);
  }
  return item;
}

function show() {
  const all = [...shown.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
  $('list').replaceChildren(...all.slice(0, 50).map(row));
  $('empty').hidden = $('try').hidden = all.length > 0;
}

let counts = 0;

/** The hub counts, as there may be more than are shown. An answer that a later question has overtaken is none. */
async function count() {
  const mine = ++counts;
  const answer = await api('/unread-count');
  if (!answer.ok) return;
  const { unread } = await answer.json();
  if (mine !== counts) return;
  $('badge').hidden = unread === 0;
  $('badge').textContent = unread > 99 ? '99+' : unread;
  document.title = unread > 0 ? `(${unread}) Notifications` : 'Notifications';
}

function toast(notification) {
  const box = element('div', 'toast', '');
  box.append(element('div', 'message', notification.title ?? 'A message'));
  if (notification.body) box.append(element('div', 'body', notification.body));
  $('toasts').append(box);
  // Many at once would hide the page; the list has them all.
  while ($('toasts').childElementCount > TOASTS_MAX) $('toasts').firstChild.remove();
  setTimeout(() => box.remove(), 6000);
}

async function act(path) {
  try {
    const answer = await api(path, { method: 'POST' });
    fail(answer.ok ? '' : (await answer.json()).detail);
  } catch {
    fail('The hub can’t be reached; nothing was changed.');
  }
}

function fail(text) {
  $('error').hidden = !text;
  $('error').textContent = text;
}

function state(name) {
  $('state').dataset.state = name;
  $('state').textContent = { connected: 'Live', connecting: 'Connecting…', disconnected: 'Disconnected' }[name];
}

/** What is there already, and how much of it is unread. */
async function load() {
  const answer = await api('?limit=50');
  if (!answer.ok) return fail((await answer.json()).detail);
  for (const notification of (await answer.json()).notifications) shown.set(notification.id, notification);
  show();
  await count();
}

function connect() {
  const source = new EventSource(`${hub}/api/v1/notifications/subscribe?user=${encodeURIComponent(user)}`, {
    withCredentials: false,
  });
  source.addEventListener('connected', () => {
    state('connected');
    fail('');
    // After every reconnect too: other tabs may have read some meanwhile.
    load();
  });
  source.onmessage = event => {
    const notification = JSON.parse(event.data);
    const isNew = !shown.has(notification.id);
    shown.set(notification.id ?? crypto.randomUUID(), notification);
    show();
    if (isNew) toast(notification);
    count();
  };
  // What another tab has done.
  source.addEventListener('notification.read', event => {
    const { id, all } = JSON.parse(event.data);
    for (const notification of shown.values()) if (all || notification.id === id) notification.read = true;
    show();
    count();
  });
  source.addEventListener('notification.deleted', event => {
    shown.delete(JSON.parse(event.data).id);
    show();
    count();
  });
  source.onerror = () => {
    state('disconnected');
    // A browser gives up after some errors; the page does not.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  };
}

$('read-all').onclick = () => act('/read-all');
$('bell').onclick = () => {
  const panel = $('panel');
  panel.hidden = !panel.hidden;
  $('bell').setAttribute('aria-expanded', String(!panel.hidden));
};
connect();
