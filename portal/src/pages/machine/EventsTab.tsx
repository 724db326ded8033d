import { revisions } from '../../state/store';
import { ObjectEvents } from '../ObjectEvents';
import type { TabProps } from './MachinePage';

export function EventsTab({ machine }: TabProps) {
  return <ObjectEvents object={`machine:${machine.id}`} turn={revisions.value.get(machine.id)} />;
}
