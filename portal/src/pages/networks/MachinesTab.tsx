// Who is on a network: the machines that name it, the cards of those that run, the addresses given out.
import { getAll } from '../../api/client';
import type { MachineSummary, NetworkLease, NetworkPort } from '../../api/types';
import { ago } from '../../lib/format';
import { link, navigate } from '../../lib/router';
import { machineList, machinesLoaded } from '../../state/store';
import { State } from '../../ui/bits';
import type { Column } from '../../ui/DataTable';
import { Cpu, MonitorUp, NetworkIcon } from '../../ui/icons';
import { Listing } from '../../ui/Listing';
import { listedOf, useLoaded } from '../use-loaded';
import type { NetworkTabProps } from './NetworkPage';

const MACHINES: Column<MachineSummary>[] = [
  {
    key: 'name',
    title: 'Machine',
    width: 'minmax(120px, 1.4fr)',
    cell: (m) => <a href={link('machines', m.id)}>{m.name}</a>,
    sort: (m) => m.name,
  },
  {
    key: 'state',
    title: 'State',
    width: 'minmax(100px, 1fr)',
    cell: (m) => <State state={m.state} />,
    sort: (m) => m.state,
  },
  {
    key: 'addresses',
    title: 'Addresses',
    width: 'minmax(140px, 2fr)',
    from: 'tablet',
    cell: (m) => <span class="mono">{m.addresses.join(', ') || '–'}</span>,
  },
];

const PORTS: Column<NetworkPort>[] = [
  {
    key: 'name',
    title: 'Machine',
    width: 'minmax(100px, 1fr)',
    cell: (p) => <a href={link('machines', p.machine)}>{p.name}</a>,
    sort: (p) => p.name,
  },
  { key: 'card', title: 'Card', width: '60px', cell: (p) => p.card + 1, sort: (p) => p.card },
  {
    key: 'mac',
    title: 'MAC address',
    width: '160px',
    cell: (p) => <span class="mono">{p.mac}</span>,
    sort: (p) => p.mac,
  },
  {
    key: 'addresses',
    title: 'May send from',
    width: 'minmax(140px, 2fr)',
    from: 'desktop',
    cell: (p) => <span class="mono">{p.addresses.join(', ') || '–'}</span>,
  },
  {
    key: 'vlan',
    title: 'VLAN',
    width: '110px',
    from: 'tablet',
    cell: (p) => [p.vlan, ...p.vlans.map((v) => `${v} tagged`)].filter(Boolean).join(', ') || '–',
  },
  {
    key: 'interface',
    title: 'Interface',
    width: '160px',
    from: 'wide',
    cell: (p) => <span class="mono">{p.interface}</span>,
  },
];

const LEASES: Column<NetworkLease>[] = [
  {
    key: 'address',
    title: 'Address',
    width: 'minmax(140px, 1.4fr)',
    cell: (l) => <span class="mono">{l.address}</span>,
    sort: (l) => l.address,
  },
  {
    key: 'name',
    title: 'Name in DNS',
    width: 'minmax(100px, 1fr)',
    cell: (l) => l.name,
    sort: (l) => l.name,
  },
  {
    key: 'mac',
    title: 'MAC address',
    width: '160px',
    from: 'desktop',
    cell: (l) => <span class="mono">{l.mac}</span>,
  },
  {
    key: 'reserved',
    title: 'Reserved',
    width: '90px',
    from: 'tablet',
    cell: (l) => (l.reserved ? 'Yes' : '–'),
    sort: (l) => (l.reserved ? 0 : 1),
  },
  {
    key: 'expires',
    title: 'Expires',
    width: '130px',
    from: 'tablet',
    cell: (l) => (l.expires ? ago(l.expires) : 'Never'),
    sort: (l) => l.expires,
  },
];

export function MachinesTab({ network, ports }: NetworkTabProps) {
  const path = `/networks/${network.id}/leases`;
  const leases = useLoaded(() => getAll<NetworkLease>(path), [path], 5000);
  const on = machineList.value.filter((m) => m.networks.includes(network.name));
  const nothing = { icon: NetworkIcon, title: 'No card is connected now' };
  return (
    <>
      <Listing
        label="Machines"
        title="Machines"
        list={{ items: on, loaded: machinesLoaded.value, problem: null, reload: () => undefined }}
        nothing={{ icon: MonitorUp, title: 'No machine names this network' }}
        columns={MACHINES}
        keyOf={(m) => m.id}
        nameOf={(m) => m.name}
        textOf={(m) => `${m.name} ${m.state} ${m.addresses.join(' ')}`}
        onOpen={(m) => navigate(link('machines', m.id))}
      />
      {network.type !== 'user' && (
        <Listing
          label="Cards of running machines"
          title="Cards of running machines"
          list={{ items: ports, loaded: true, problem: null, reload: () => undefined }}
          nothing={{ ...nothing, icon: Cpu }}
          columns={PORTS}
          keyOf={(p) => p.interface}
          nameOf={(p) => p.name}
          textOf={(p) => `${p.name} ${p.mac} ${p.addresses.join(' ')} ${p.interface}`}
        />
      )}
      {network.dhcp && network.type !== 'user' && (
        <Listing
          label="Leases"
          title="Leases"
          list={listedOf(leases)}
          nothing={{ ...nothing, title: 'No address is given out now' }}
          columns={LEASES}
          keyOf={(l) => `${l.mac} ${l.address}`}
          nameOf={(l) => l.name}
          textOf={(l) => `${l.address} ${l.name} ${l.mac}`}
        />
      )}
    </>
  );
}
