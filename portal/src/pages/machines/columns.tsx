import { CircleDot } from '../../ui/icons';
import type { MachineSummary } from '../../api/types';
import { bytes, duration, osName, percent } from '../../lib/format';
import { link } from '../../lib/router';
import { Meter, State, Tag } from '../../ui/bits';
import type { Column } from '../../ui/DataTable';

const live = (m: MachineSummary): boolean => m.state === 'running' || m.state === 'paused';

export const MACHINE_COLUMNS: Column<MachineSummary>[] = [
  {
    key: 'name',
    title: 'Name',
    width: 'minmax(150px, 2fr)',
    sort: (m) => m.name,
    cell: (m) => (
      <span class="name">
        <a href={link('machines', m.id)} title={m.description || m.name}>
          {m.name}
        </a>
        {m.pending && (
          <span class="pending-mark" title="Changes wait for the next start">
            <CircleDot size={12} aria-label="Changes wait for the next start" />
          </span>
        )}
      </span>
    ),
  },
  {
    key: 'state',
    title: 'State',
    width: 'minmax(104px, 0.8fr)',
    sort: (m) => m.state,
    cell: (m) => <State state={m.state} />,
  },
  {
    key: 'cpu',
    title: 'CPU',
    width: 'minmax(120px, 1fr)',
    from: 'tablet',
    sort: (m) => (live(m) ? m.usage.cpu / m.cpus : -1),
    cell: (m) =>
      live(m) ? (
        <Meter
          value={m.usage.cpu}
          max={m.cpus * 100}
          label={`CPU of ${m.name}`}
          text={`${percent(m.usage.cpu / m.cpus)} of ${m.cpus}`}
        />
      ) : (
        <span class="meter-text">{m.cpus} CPU</span>
      ),
  },
  {
    key: 'memory',
    title: 'Memory',
    width: 'minmax(130px, 1fr)',
    from: 'tablet',
    sort: (m) => m.memory,
    cell: (m) =>
      live(m) ? (
        <Meter
          value={m.usage.memory}
          max={m.memory}
          label={`Memory of ${m.name}`}
          text={`of ${bytes(m.memory)}`}
        />
      ) : (
        <span class="meter-text">{bytes(m.memory)}</span>
      ),
  },
  {
    key: 'address',
    title: 'Address',
    width: 'minmax(110px, 1fr)',
    from: 'desktop',
    sort: (m) => m.addresses[0] ?? null,
    cell: (m) => <span class="muted">{m.addresses[0] ?? ''}</span>,
  },
  {
    key: 'os',
    title: 'System',
    width: 'minmax(100px, 0.8fr)',
    from: 'wide',
    sort: (m) => osName(m.os),
    cell: (m) => <span class="muted">{m.os ? osName(m.os) : ''}</span>,
  },
  {
    key: 'uptime',
    title: 'Up',
    width: '92px',
    from: 'desktop',
    sort: (m) => m.uptime,
    cell: (m) => <span class="muted">{live(m) ? duration(m.uptime) : ''}</span>,
  },
  {
    key: 'folder',
    title: 'Folder',
    width: 'minmax(80px, 0.8fr)',
    from: 'wide',
    sort: (m) => m.folder,
    cell: (m) => <span class="muted">{m.folder === '/' ? '' : m.folder}</span>,
  },
  {
    key: 'tags',
    title: 'Tags',
    width: 'minmax(90px, 1fr)',
    from: 'desktop',
    cell: (m) => (
      <>
        {m.tags.map((tag) => (
          <Tag key={tag} name={tag} href={`#/machines?q=${encodeURIComponent(`tag:${tag}`)}`} />
        ))}
      </>
    ),
  },
];
