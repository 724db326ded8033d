// What machines' network cards connect to.
import { useState } from 'preact/hooks';
import { NetworkIcon, Plus, Trash2 } from '../../ui/icons';
import type { Network } from '../../api/types';
import { link, navigate } from '../../lib/router';
import { count } from '../../lib/format';
import { removeAsked } from '../../state/actions';
import { isAdministrator, networks } from '../../state/store';
import { Badge, Page, Status } from '../../ui/bits';
import { Button } from '../../ui/Button';
import type { Column } from '../../ui/DataTable';
import { Listing } from '../../ui/Listing';
import { useListed } from '../use-loaded';
import { CreateNetwork } from './CreateNetwork';
import { TYPES } from './types';

export function NetworkState({ network }: { network: Network }) {
  const up = network.state === 'up';
  return (
    <span title={network.reason ?? undefined}>
      <Status tone={up ? 'ok' : 'bad'} text={up ? 'Up' : 'Down'} />
    </span>
  );
}

const COLUMNS: Column<Network>[] = [
  {
    key: 'name',
    title: 'Name',
    width: 'minmax(120px, 1.4fr)',
    cell: (n) => <a href={link('networks', n.id)}>{n.name}</a>,
    sort: (n) => n.name,
  },
  {
    key: 'type',
    title: 'Type',
    width: '100px',
    cell: (n) => <Badge>{TYPES[n.type].label}</Badge>,
    sort: (n) => n.type,
  },
  {
    key: 'state',
    title: 'State',
    width: 'minmax(90px, 1fr)',
    cell: (n) => <NetworkState network={n} />,
    sort: (n) => n.state,
  },
  {
    key: 'subnet',
    title: 'Subnet',
    width: 'minmax(120px, 1fr)',
    from: 'tablet',
    cell: (n) => <span class="mono">{n.subnet ?? '–'}</span>,
    sort: (n) => n.subnet,
  },
  {
    key: 'bridge',
    title: 'Bridge',
    width: '130px',
    from: 'desktop',
    cell: (n) => `${n.bridge ?? '–'}${n.vlan ? `, VLAN ${n.vlan}` : ''}`,
    sort: (n) => n.bridge,
  },
  {
    key: 'services',
    title: 'Services',
    width: '130px',
    from: 'desktop',
    cell: (n) => [n.dhcp && 'DHCP', n.dns && 'DNS'].filter(Boolean).join(', ') || '–',
  },
  {
    key: 'machines',
    title: 'Machines',
    width: '100px',
    align: 'end',
    cell: (n) => n.machines,
    sort: (n) => n.machines,
  },
];

export const dropNetwork = (network: Network): Promise<boolean> =>
  removeAsked({
    title: `Delete the network ${network.name}?`,
    body: [
      network.machines
        ? `${count(network.machines, 'machine')} of this host refer to it; they must leave it first.`
        : 'No machine uses it.',
    ],
    path: `/networks/${network.id}`,
    failed: `${network.name} was not deleted`,
    then: () => networks.load(),
  });

export function Networks() {
  const list = useListed(networks);
  const [creating, setCreating] = useState(false);
  return (
    <Page
      title="Networks"
      lead="What machines' network cards connect to."
      actions={
        isAdministrator.value && (
          <Button icon={Plus} variant="primary" onClick={() => setCreating(true)}>
            New network
          </Button>
        )
      }
    >
      <Listing
        label="Networks"
        list={list}
        nothing={{ icon: NetworkIcon, title: 'No networks' }}
        columns={COLUMNS}
        keyOf={(n) => n.id}
        nameOf={(n) => n.name}
        textOf={(n) => `${n.name} ${n.type} ${n.subnet ?? ''} ${n.bridge ?? ''}`}
        onOpen={(n) => navigate(link('networks', n.id))}
        rowActions={
          isAdministrator.value
            ? (n) => [{ icon: Trash2, label: `Delete ${n.name}`, run: () => void dropNetwork(n) }]
            : undefined
        }
      />
      {creating && <CreateNetwork onClose={() => setCreating(false)} />}
    </Page>
  );
}
