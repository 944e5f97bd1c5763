import { type Envelope, useEventStream } from './useEventStream';

const STATES = { connecting: 'Connecting…', connected: 'Connected', disconnected: 'Disconnected' };

/** The newest events of a stream, newest first, and whether the connection is there. */
export function EventStream({ hub, streamId }: { hub: string; streamId: string }) {
  const { events, state } = useEventStream(hub, streamId);
  return (
    <section className="stream">
      <header>
        <h2>{streamId}</h2>
        <span className="state" data-state={state} role="status">
          {STATES[state]}
        </span>
      </header>
      {state === 'disconnected' && <p className="hint">The hub can’t be reached. Trying again…</p>}
      {events.length === 0 && state !== 'disconnected' && <p className="hint">No events yet.</p>}
      <ol>
        {events.toReversed().map(event => (
          <Row key={event.id} event={event} />
        ))}
      </ol>
    </section>
  );
}

function Row({ event }: { event: Envelope }) {
  return (
    <li className={`event ${KINDS[event.type] ?? ''}`}>
      <div className="line">
        <span className="type">{event.type}</span>
        <span className="message">{event.message}</span>
        <time>{new Date(event.timestamp * 1_000).toLocaleTimeString()}</time>
      </div>
      {event.data != null && <Data data={event.data} />}
    </li>
  );
}

/** Colours for some of the types; the others are grey. */
const KINDS: Record<string, string> = {
  system_alert: 'warn',
  gap: 'warn',
  error: 'bad',
  notification: 'info',
  user_action: 'good',
  metric_update: 'info',
};

function Data({ data }: { data: unknown }) {
  if (typeof data !== 'object' || Array.isArray(data)) {
    return <pre>{JSON.stringify(data)}</pre>;
  }
  return (
    <dl>
      {Object.entries(data!).map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{typeof value === 'string' ? value : JSON.stringify(value)}</dd>
        </div>
      ))}
    </dl>
  );
}
