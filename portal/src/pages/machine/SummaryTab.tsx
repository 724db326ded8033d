// What one wants to know first: how it does, what its screen shows, what it is made of.
import { useEffect, useState } from 'preact/hooks';
import { Pencil, SquareTerminal } from '../../ui/icons';
import { get, requestRaw } from '../../api/client';
import type { Machine, Stats } from '../../api/types';
import { ago, bytes, count, dateTime, duration, osName, percent } from '../../lib/format';
import { link } from '../../lib/router';
import { datastores, has, mayChange, pools } from '../../state/store';
import { Badge, CopyButton, Facts, Meter, Panel } from '../../ui/bits';
import { Button } from '../../ui/Button';
import { StatsCharts } from '../StatsCharts';
import { useCollection, useLoaded } from '../use-loaded';
import { GeneralDialog } from './GeneralDialog';
import type { TabProps } from './MachinePage';

/** The screen, asked for again every few seconds while somebody looks. */
function useScreenshot(machine: Machine): string | null {
  const [url, setUrl] = useState<string | null>(null);
  const live = machine.state === 'running';
  useEffect(() => {
    if (!live) return setUrl(null);
    const state = { stopped: false, url: '' };
    const ask = async (): Promise<void> => {
      if (document.hidden) return;
      try {
        const response = await requestRaw('GET', `/machines/${machine.id}/screenshot`, {
          headers: { Accept: 'image/png' },
        });
        const next = URL.createObjectURL(await response.blob());
        if (state.stopped) return URL.revokeObjectURL(next);
        if (state.url) URL.revokeObjectURL(state.url);
        state.url = next;
        setUrl(next);
      } catch {
        // The guest has no screen yet: the picture stays as it is.
      }
    };
    void ask();
    const timer = setInterval(() => void ask(), 8000);
    return () => {
      state.stopped = true;
      clearInterval(timer);
      if (state.url) URL.revokeObjectURL(state.url);
    };
  }, [machine.id, live]);
  return url;
}

function Screen({ machine }: { machine: Machine }) {
  const url = useScreenshot(machine);
  return (
    <a class="screen" href={link('machines', machine.id, 'console')} aria-label="Open the console">
      {url ? (
        <img src={url} alt={`The screen of ${machine.name}`} />
      ) : (
        <span>
          <SquareTerminal size={26} aria-hidden="true" />
          {machine.state === 'running' ? 'Open the console' : 'The machine is off'}
        </span>
      )}
    </a>
  );
}

function Addresses({ list }: { list: string[] }) {
  if (!list.length) return <span class="muted">None known</span>;
  return (
    <ul class="addresses">
      {list.map((address) => (
        <li key={address}>
          <span class="mono">{address}</span>
          <CopyButton text={address} label={`Copy ${address}`} />
        </li>
      ))}
    </ul>
  );
}

export function SummaryTab({ machine }: TabProps) {
  const [editing, setEditing] = useState(false);
  const stats = useLoaded(
    () => get<Stats>(`/machines/${machine.id}/stats`, { range: 'hour' }),
    [machine.id],
    20_000,
  );
  const stores = useCollection(datastores);
  const poolList = useCollection(pools);
  const running = machine.state === 'running' || machine.state === 'paused';
  const disks = machine.config.disks?.length ?? 0;
  const cards = machine.config.networks?.length ?? 0;
  return (
    <>
      <div class="summary-grid">
        <Panel title="Screen">
          <Screen machine={machine} />
        </Panel>
        <Panel title="Now">
          <div class="now">
            <div>
              <span class="muted">CPU</span>
              <b class="number">{running ? percent(machine.usage.cpu / machine.cpus) : '–'}</b>
              <Meter value={running ? machine.usage.cpu : 0} max={machine.cpus * 100} label="CPU" />
              <span class="muted">of {count(machine.cpus, 'CPU')}</span>
            </div>
            <div>
              <span class="muted">Memory</span>
              <b class="number">{running ? bytes(machine.usage.memory) : '–'}</b>
              <Meter
                value={running ? machine.usage.memory : 0}
                max={machine.memory}
                label="Memory"
              />
              <span class="muted">of {bytes(machine.memory)}</span>
            </div>
          </div>
          <Facts
            rows={[
              ['Addresses', <Addresses list={machine.addresses} />],
              ...(machine.guest
                ? ([
                    [
                      'Guest',
                      [machine.guest.hostname, machine.guest.os].filter(Boolean).join(', ') || '–',
                    ],
                    [
                      'Agent',
                      [machine.guest.agent, machine.guest.version].filter(Boolean).join(' '),
                    ],
                  ] as [string, string][])
                : []),
              ['Up', running ? duration(machine.uptime) : '–'],
              ['Engine', machine.engine ? <Badge>{machine.engine}</Badge> : '–'],
            ]}
          />
        </Panel>
        <Panel
          title="About"
          actions={
            mayChange.value && (
              <Button small variant="ghost" icon={Pencil} onClick={() => setEditing(true)}>
                Edit
              </Button>
            )
          }
        >
          <Facts
            rows={[
              ['Description', machine.description || '–'],
              ['System', osName(machine.os)],
              ['Hardware', `${count(disks, 'disk')}, ${count(cards, 'network card')}`],
              ['Datastore', stores.find((d) => d.id === machine.datastore)?.name ?? '–'],
              ...(has('pools')
                ? [
                    ['Pool', poolList.find((p) => p.id === machine.pool)?.name ?? 'None'] as [
                      string,
                      string,
                    ],
                  ]
                : []),
              [
                'Starts with host',
                machine.autostart.enabled
                  ? `Yes, order ${machine.autostart.order ?? 0}, after ${duration(machine.autostart.delay ?? 0)}`
                  : 'No',
              ],
              ['Created', <span title={dateTime(machine.created)}>{ago(machine.created)}</span>],
              [
                'Id',
                <span class="with-copy">
                  <span class="mono clip">{machine.id}</span>
                  <CopyButton text={machine.id} label="Copy the id" />
                </span>,
              ],
            ]}
          />
        </Panel>
      </div>
      <StatsCharts stats={stats.value} cpus={machine.cpus} memory={machine.memory} height={104} />
      {editing && <GeneralDialog machine={machine} onClose={() => setEditing(false)} />}
    </>
  );
}
