// The host at a glance: is it well, how full is it, what happens on it.
import { Cpu, HardDrive, MemoryStick, Monitor } from '../ui/icons';
import type { LucideIcon } from '../ui/icons';
import { get } from '../api/client';
import type { Host, MachineSummary, Stats } from '../api/types';
import { bytes, capitalize, duration, percent, type Tone } from '../lib/format';
import { link } from '../lib/router';
import { events, host, machineList } from '../state/store';
import { Facts, Meter, Page, Panel, Status } from '../ui/bits';
import { EventList } from './EventList';
import { StatsCharts } from './StatsCharts';
import { useLoaded } from './use-loaded';

interface TileProps {
  icon: LucideIcon;
  title: string;
  value: string;
  note: string;
  share?: [number, number];
  href?: string;
}

function Tile({ icon: Icon, title, value, note, share, href }: TileProps) {
  return (
    <section class="panel tile" aria-label={title}>
      <span class="tile-title">
        <Icon size={15} aria-hidden="true" />
        {href ? <a href={href}>{title}</a> : title}
      </span>
      <b class="number">{value}</b>
      {share ? <Meter value={share[0]} max={share[1]} label={title} /> : <span class="tile-gap" />}
      <span class="muted">{note}</span>
    </section>
  );
}

const HEALTH: Record<string, Tone> = { info: 'info', warning: 'warn', error: 'bad' };

function Health({ host }: { host: Host }) {
  const troubles = host.health.filter((h) => h.level !== 'info');
  return (
    <Panel title="Health">
      <ul class="health">
        {!troubles.length && (
          <li>
            <Status tone="ok" text="Everything is well" />
          </li>
        )}
        {host.health.map((h) => (
          <li key={h.text}>
            <span class={`status ${HEALTH[h.level]}`}>
              <span class="dot" aria-hidden="true" />
              <span class="only-read">{h.level}</span>
            </span>
            {h.text}
          </li>
        ))}
      </ul>
    </Panel>
  );
}

function Busiest({ machines }: { machines: MachineSummary[] }) {
  const busy = machines
    .filter((m) => m.state === 'running' && m.usage.cpu != null)
    .sort((a, b) => b.usage.cpu - a.usage.cpu)
    .slice(0, 6);
  if (!busy.length) return null;
  return (
    <Panel title="Busiest machines">
      <ul class="busiest">
        {busy.map((m) => (
          <li key={m.id}>
            <a class="clip" href={link('machines', m.id)}>
              {m.name}
            </a>
            <Meter
              value={m.usage.cpu}
              max={m.cpus * 100}
              label={`CPU of ${m.name}`}
              text={`${(m.usage.cpu / 100).toFixed(1)} of ${m.cpus}`}
            />
          </li>
        ))}
      </ul>
    </Panel>
  );
}

function engineText(host: Host): string {
  const usable = host.engines.filter((e) => e.available).map((e) => e.name);
  return usable.length ? usable.join(', ') : 'none';
}

export function Overview() {
  const h = host.value;
  const stats = useLoaded(() => get<Stats>('/host/stats', { range: 'hour' }), [], 20_000);
  const list = machineList.value;
  const crashed = list.filter((m) => m.state === 'crashed').length;
  if (!h) return <Page title="Overview">{null}</Page>;
  const cpu = stats.value?.series.cpu.findLast((v) => v !== null) ?? null;
  const promised = list.filter((m) => m.state === 'running').reduce((n, m) => n + m.cpus, 0);
  return (
    <Page title={h.name} lead={`Mullion ${h.version}, up ${duration(h.uptime)}`}>
      <div class="tiles">
        <Tile
          icon={Monitor}
          title="Machines"
          href="#/machines"
          value={`${h.machines.running} of ${h.machines.total}`}
          note={`running${h.machines.paused ? `, ${h.machines.paused} paused` : ''}${crashed ? `, ${crashed} crashed` : ''}`}
          share={[h.machines.running, h.machines.total]}
        />
        <Tile
          icon={Cpu}
          title="CPU"
          value={cpu === null ? '–' : percent(cpu / h.cpus)}
          note={`${h.cpus} CPUs, ${promised} promised to machines`}
          share={cpu === null ? undefined : [cpu, h.cpus * 100]}
        />
        <Tile
          icon={MemoryStick}
          title="Memory"
          value={percent((h.memory.used / h.memory.total) * 100)}
          note={`${bytes(h.memory.used)} of ${bytes(h.memory.total)}, machines ${bytes(h.memory.machines)}`}
          share={[h.memory.used, h.memory.total]}
        />
        <Tile
          icon={HardDrive}
          title="Storage"
          href="#/datastores"
          value={percent((h.storage.used / Math.max(1, h.storage.total)) * 100)}
          note={`${bytes(h.storage.used)} of ${bytes(h.storage.total)}`}
          share={[h.storage.used, h.storage.total]}
        />
      </div>
      <StatsCharts stats={stats.value} cpus={h.cpus} memory={h.memory.total} height={120} />
      <div class="split">
        <Panel title="Recent events" actions={<a href="#/events">All events</a>} flush>
          <EventList events={events.value.slice(0, 10)} />
        </Panel>
        <div class="stack">
          <Health host={h} />
          <Busiest machines={list} />
          <Panel title="Host">
            <Facts
              rows={[
                ['Processor', h.cpu_model],
                ['Engines', capitalize(engineText(h))],
                ['Load', h.load.map((l) => l.toFixed(2)).join('  ')],
                ['Up since', duration(h.uptime)],
              ]}
            />
          </Panel>
        </div>
      </div>
    </Page>
  );
}
