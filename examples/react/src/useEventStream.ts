import { useEffect, useState } from 'react';

/** One event of a stream, as the hub sends it. */
export interface Envelope {
  id: string;
  type: string;
  message: string;
  data?: unknown;
  /** Seconds since 1970. */
  timestamp: number;
  /** Missing where the event went to all streams. */
  stream_id?: string;
}

export type ConnectionState = 'connecting' | 'connected' | 'disconnected';

const EVENTS_MAX = 10;
/** How long to wait where the browser has given up, which it does on an answer that is an error. */
const REOPEN_MS = 3_000;

/**
 * Follows a stream of the hub: its newest events, oldest first, and the state of the connection.
 *
 * A browser reconnects by itself when a connection is lost, and says which event it saw last. The stream is closed when
 * the component goes, and opened anew when `streamId` changes.
 */
export function useEventStream(hub: string, streamId: string) {
  const [events, setEvents] = useState<Envelope[]>([]);
  const [state, setState] = useState<ConnectionState>('connecting');

  useEffect(() => {
    let source: EventSource;
    let timer: ReturnType<typeof setTimeout>;
    let lastEventId = '';

    function open() {
      const query = lastEventId && `?last_event_id=${encodeURIComponent(lastEventId)}`;
      source = new EventSource(`${hub}/api/v1/events/stream/${encodeURIComponent(streamId)}${query}`);
      source.onmessage = message => {
        lastEventId = message.lastEventId || lastEventId;
        // The first message is the hub's greeting. `onopen` would be too early: a proxy answers for a hub that is away.
        setState('connected');
        const event: Envelope = JSON.parse(message.data);
        if (event.type !== 'connection') {
          setEvents(events => [...events, event].slice(-EVENTS_MAX));
        }
      };
      source.onerror = () => {
        setState('disconnected');
        if (source.readyState === EventSource.CLOSED) {
          timer = setTimeout(open, REOPEN_MS);
        }
      };
    }

    setEvents([]);
    setState('connecting');
    open();
    return () => {
      clearTimeout(timer);
      source.close();
    };
  }, [hub, streamId]);

  return { events, state };
}
