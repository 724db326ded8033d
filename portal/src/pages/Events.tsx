import { useState } from 'preact/hooks';
import { Search } from '../ui/icons';
import { events } from '../state/store';
import { Page, Panel } from '../ui/bits';
import { EventList } from './EventList';

const LEVELS = ['all', 'warning', 'error'] as const;

export function Events() {
  const [text, setText] = useState('');
  const [level, setLevel] = useState<(typeof LEVELS)[number]>('all');
  const wanted = text.toLowerCase();
  const shown = events.value.filter(
    (e) =>
      (level === 'all' ||
        e.severity === level ||
        (level === 'warning' && e.severity === 'error')) &&
      (!wanted ||
        `${e.text} ${e.object_name ?? ''} ${e.user ?? ''} ${e.type}`
          .toLowerCase()
          .includes(wanted)),
  );
  return (
    <Page
      title="Events"
      lead="What has happened on this host, the newest first. New ones appear by themselves."
    >
      <div class="filters">
        <div class="search">
          <Search size={15} aria-hidden="true" />
          <input
            type="search"
            aria-label="Filter events"
            placeholder="Text, object or user"
            value={text}
            onInput={(e) => setText(e.currentTarget.value)}
          />
        </div>
        <div class="segments" role="group" aria-label="Severity">
          {LEVELS.map((l) => (
            <button key={l} type="button" aria-pressed={level === l} onClick={() => setLevel(l)}>
              {{ all: 'All', warning: 'Warnings', error: 'Errors' }[l]}
            </button>
          ))}
        </div>
      </div>
      <Panel title={`${shown.length} events`} flush>
        <EventList events={shown} />
      </Panel>
    </Page>
  );
}
