// The history of one object: what the server has kept of it, and what comes while somebody looks.
import { get } from '../api/client';
import type { HostEvent, Page as ListPage } from '../api/types';
import { events, isUpdate } from '../state/store';
import { Banner, Panel } from '../ui/bits';
import { EventList } from './EventList';
import { useLoaded } from './use-loaded';

/** @param turn  another number: ask again */
export function ObjectEvents({ object, turn }: { object: string; turn: number | undefined }) {
  const older = useLoaded(
    () => get<ListPage<HostEvent>>('/events', { object, limit: 200, sort: '-id' }),
    [object, turn],
  );
  const live = events.value.filter((e) => e.object === object);
  const known = new Map([...live, ...(older.value?.items ?? [])].map((e) => [e.id, e]));
  const list = [...known.values()].filter((e) => !isUpdate(e)).sort((a, b) => b.id - a.id);
  return (
    <>
      {older.problem && <Banner tone="bad">{older.problem}</Banner>}
      <Panel title="Events" flush>
        <EventList events={list} object={false} />
      </Panel>
    </>
  );
}
