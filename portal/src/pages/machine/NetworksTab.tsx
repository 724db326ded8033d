// The machine's network cards: read here, changed under Hardware.
import { NetworkIcon } from '../../ui/icons';
import type { NetworkConfig } from '../../api/types';
import { link } from '../../lib/router';
import { mayChange } from '../../state/store';
import { Badge, Empty, Panel } from '../../ui/bits';
import { DataTable, type Column } from '../../ui/DataTable';
import type { TabProps } from './MachinePage';

type Card = NetworkConfig & { index: number };

const COLUMNS: Column<Card>[] = [
  { key: 'index', title: 'Card', width: '70px', cell: (n) => n.index + 1 },
  {
    key: 'name',
    title: 'Network',
    width: 'minmax(120px, 1fr)',
    cell: (n) => n.name ?? n.type ?? 'user',
  },
  { key: 'type', title: 'Type', width: '100px', cell: (n) => <Badge>{n.type ?? 'user'}</Badge> },
  {
    key: 'model',
    title: 'Model',
    width: '110px',
    from: 'tablet',
    cell: (n) => n.model ?? 'virtio',
  },
  {
    key: 'mac',
    title: 'MAC address',
    width: '160px',
    from: 'tablet',
    cell: (n) => <span class="mono">{n.mac ?? 'made at start'}</span>,
  },
  {
    key: 'forward',
    title: 'Forwarded ports',
    width: 'minmax(140px, 1.4fr)',
    cell: (n) =>
      n.forward?.map((f) => <Badge key={f}>{f}</Badge>) ?? <span class="muted">None</span>,
  },
];

export function NetworksTab({ machine }: TabProps) {
  const cards = (machine.config.networks ?? []).map((n, index) => ({ ...n, index }));
  return (
    <Panel
      title="Network cards"
      flush
      actions={
        mayChange.value && (
          <a class="button small" href={link('machines', machine.id, 'hardware')}>
            Edit hardware
          </a>
        )
      }
    >
      {cards.length ? (
        <DataTable
          label="Network cards"
          columns={COLUMNS}
          items={cards}
          keyOf={(n) => String(n.index)}
        />
      ) : (
        <Empty icon={NetworkIcon} title="Not connected to any network" />
      )}
    </Panel>
  );
}
