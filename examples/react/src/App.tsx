import { useState } from 'react';
import { EventStream } from './EventStream';

const query = new URLSearchParams(location.search);
const HUB = (query.get('hub') ?? import.meta.env.VITE_HUB ?? 'http://127.0.0.1:8080').replace(/\/$/, '');
const STREAMS = ['default', 'system', 'user-activity', 'notifications'];

export function App() {
  const [streamId, setStreamId] = useState(query.get('stream') ?? STREAMS[0]);
  const streams = STREAMS.includes(streamId) ? STREAMS : [...STREAMS, streamId];
  return (
    <main>
      <header className="top">
        <h1>Event streams</h1>
        <code>{HUB}</code>
      </header>
      <nav>
        {streams.map(id => (
          <button key={id} aria-pressed={id === streamId} onClick={() => setStreamId(id)}>
            {id}
          </button>
        ))}
      </nav>
      <EventStream hub={HUB} streamId={streamId} />
    </main>
  );
}
