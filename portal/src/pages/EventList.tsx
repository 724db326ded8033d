import { Activity } from '../ui/icons';
import type { HostEvent } from '../api/types';
import { ago, dateTime, type Tone } from '../lib/format';
import { link } from '../lib/router';
import { machines, networks, splitObject } from '../state/store';
import { Empty } from '../ui/bits';

const TONES: Record<HostEvent['severity'], Tone> = { info: 'info', warning: 'warn', error: 'bad' };

function ObjectLink({ event }: { event: HostEvent }) {
  const [kind, id] = splitObject(event.object);
  if (!event.object_name) return null;
  const place =
    kind === 'machine' && machines.value.has(id)
      ? 'machines'
      : kind === 'network' && networks.items.value.some((n) => n.id === id)
        ? 'networks'
        : null;
  return place ? (
    <a href={link(place, id)}>{event.object_name}</a>
  ) : (
    <span>{event.object_name}</span>
  );
}

export function EventList({ events, object = true }: { events: HostEvent[]; object?: boolean }) {
  if (!events.length) return <Empty icon={Activity} title="No events" />;
  return (
    <ul class="event-list">
      {events.map((e) => (
        <li key={e.id}>
          <span class={`status ${TONES[e.severity]}`}>
            <span class="dot" aria-hidden="true" />
            <span class="only-read">{e.severity}</span>
          </span>
          <span class="event-text">
            {e.text}
            {object && e.object_name && !e.text.includes(e.object_name) && (
              <>
                {' '}
                <ObjectLink event={e} />
              </>
            )}
          </span>
          <span class="muted event-user">{e.user}</span>
          <time class="muted" dateTime={e.time} title={dateTime(e.time)}>
            {ago(e.time)}
          </time>
        </li>
      ))}
    </ul>
  );
}
