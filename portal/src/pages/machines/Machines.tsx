// The list of machines: a filter line, what is chosen together, and hundreds of rows at once.
import { useEffect, useRef } from 'preact/hooks';
import { MonitorUp, Plus, Search } from '../../ui/icons';
import type { MachineState } from '../../api/types';
import { surface } from '../../app/ui-state';
import { bind } from '../../lib/hotkeys';
import { filterMachines } from '../../lib/query';
import { link, navigate, route, setQuery } from '../../lib/router';
import { machineSort } from '../../state/preferences';
import { loadAll, loadProblem, machineList, machinesLoaded, mayChange } from '../../state/store';
import { Empty, Page } from '../../ui/bits';
import { Button } from '../../ui/Button';
import { Listing } from '../../ui/Listing';
import { BulkBar } from './BulkBar';
import { MACHINE_COLUMNS } from './columns';
import { MachineMenu } from './MachineMenu';

const STATES: MachineState[] = ['running', 'stopped', 'paused', 'crashed'];

export function Machines() {
  const filter = route.value.query.get('q') ?? '';
  const input = useRef<HTMLInputElement>(null);
  const all = machineList.value;
  const shown = filterMachines(all, filter);

  useEffect(() => bind('/', () => input.current?.focus()), []);

  const toggleState = (state: MachineState): void => {
    const term = `state:${state}`;
    const rest = filter.replace(/(^|\s)state:\w+/g, '').trim();
    setQuery({ q: filter.includes(term) ? rest : `${rest} ${term}`.trim() });
  };

  if (machinesLoaded.value && !all.length)
    return (
      <Page title="Machines">
        <Empty icon={MonitorUp} title="No machines yet">
          <p>Make one from an image or an ISO, or drop an OVA or a disk anywhere on this page.</p>
          {mayChange.value && (
            <Button icon={Plus} variant="primary" onClick={() => (surface.value = 'create')}>
              New machine
            </Button>
          )}
        </Empty>
      </Page>
    );
  return (
    <Page
      title="Machines"
      lead={
        shown.length === all.length
          ? `${all.length} in the inventory`
          : `${shown.length} of ${all.length}`
      }
      fill
    >
      <div class="filters">
        <div class="search">
          <Search size={15} aria-hidden="true" />
          <input
            ref={input}
            type="search"
            aria-label="Filter machines"
            placeholder="Name, address, or tag:web  folder:/prod  os:debian"
            value={filter}
            onInput={(e) => setQuery({ q: e.currentTarget.value })}
            onKeyDown={(e) => e.key === 'Escape' && e.currentTarget.blur()}
          />
        </div>
        <div class="segments" role="group" aria-label="State">
          {STATES.map((state) => {
            const n = all.filter((m) => m.state === state).length;
            const on = filter.includes(`state:${state}`);
            if (!n && !on && state !== 'running' && state !== 'stopped') return null;
            return (
              <button
                key={state}
                type="button"
                aria-pressed={on}
                onClick={() => toggleState(state)}
              >
                {state[0]!.toUpperCase() + state.slice(1)} <span class="number">{n}</span>
              </button>
            );
          })}
        </div>
      </div>
      <Listing
        label="Machines"
        list={{
          items: all,
          loaded: machinesLoaded.value,
          problem: loadProblem.value,
          reload: loadAll,
        }}
        nothing={{ icon: MonitorUp, title: 'No machines yet' }}
        shown={shown}
        columns={MACHINE_COLUMNS}
        keyOf={(m) => m.id}
        nameOf={(m) => m.name}
        sort={machineSort.value}
        onSort={(s) => (machineSort.value = s)}
        bulk={
          mayChange.value
            ? (chosen, clear) => <BulkBar machines={chosen} onClear={clear} />
            : undefined
        }
        onOpen={(m) => navigate(link('machines', m.id))}
        actions={mayChange.value ? (m) => <MachineMenu machine={m} /> : undefined}
        fill
      />
    </Page>
  );
}
