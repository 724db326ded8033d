import { get } from '../../api/client';
import type { HostEvent, Page as ListPage } from '../../api/types';
import { events, isUpdate, revisions } from '../../state/store';
import { Banner, Panel } from '../../ui/bits';
import { EventList } from '../EventList';
import { useLoaded } from '../use-loaded';
import type { TabProps } from './MachinePage';

export function EventsTab({ machine }: TabProps) {
  const object = `machine:${machine.id}`;
  const older = useLoaded(
    () => get<ListPage<HostEvent>>('/events', { object, limit: 200, sort: '-id' }),
    [object, revisions.value.get(machine.id)],
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
