// The machine's network cards: read here, changed under Hardware.
import { NetworkIcon } from '../../ui/icons';
import type { NetworkConfig } from '../../api/types';
import { link } from '../../lib/router';
import { mayChange, networks } from '../../state/store';
import { Badge } from '../../ui/bits';
import type { Column } from '../../ui/DataTable';
import { Listing } from '../../ui/Listing';
import { useCollection } from '../use-loaded';
import type { TabProps } from './MachinePage';

type Card = NetworkConfig & { index: number };

function NetworkLink({ card }: { card: Card }) {
  const network = useCollection(networks).find((n) => n.name === card.name);
  return network ? (
    <a href={link('networks', network.id)}>{network.name}</a>
  ) : (
    <>{card.name ?? card.type ?? 'user'}</>
  );
}

const COLUMNS: Column<Card>[] = [
  { key: 'index', title: 'Card', width: '70px', cell: (n) => n.index + 1 },
  {
    key: 'name',
    title: 'Network',
    width: 'minmax(120px, 1fr)',
    cell: (n) => <NetworkLink card={n} />,
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

export function NetworksTab({ machine, reload }: TabProps) {
  const items = (machine.config.networks ?? []).map((n, index) => ({ ...n, index }));
  return (
    <Listing
      label="Network cards"
      title="Network cards"
      list={{ items, loaded: true, problem: null, reload }}
      nothing={{ icon: NetworkIcon, title: 'Not connected to any network' }}
      headActions={
        mayChange.value && (
          <a class="button small" href={link('machines', machine.id, 'hardware')}>
            Edit hardware
          </a>
        )
      }
      columns={COLUMNS}
      keyOf={(n) => String(n.index)}
    />
  );
}
