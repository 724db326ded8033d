import { useState } from 'preact/hooks';
import { Network as NetworkIcon, Plus, Trash2 } from '../ui/icons';
import { getAll, post, remove } from '../api/client';
import type { Network, NetworkLease, NetworkPort } from '../api/types';
import { count } from '../lib/format';
import { ask, notifyProblem } from '../state/notices';
import { has, isAdministrator, networks } from '../state/store';
import { Badge, Banner, Empty, Facts, Page, Status } from '../ui/bits';
import { Button } from '../ui/Button';
import { DataTable, type Column } from '../ui/DataTable';
import { Dialog } from '../ui/Dialog';
import { CheckField, NumberField, TextField } from '../ui/Field';
import { FormDialog } from './FormDialog';
import { useCollection, useLoaded } from './use-loaded';

const TYPES: Record<Network['type'], { label: string; hint: string }> = {
  user: {
    label: 'User',
    hint: 'Out through the host, without privileges. Ports come in by forwarding.',
  },
  nat: { label: 'NAT', hint: 'A private subnet behind the host, with DHCP and DNS.' },
  bridge: { label: 'Bridge', hint: 'Straight on a network of the host, if wanted in a VLAN.' },
  isolated: { label: 'Isolated', hint: 'Machines among themselves, nothing else.' },
};

const offered = (type: Network['type']): boolean => type === 'user' || has(`network-${type}`);

const COLUMNS: Column<Network>[] = [
  {
    key: 'name',
    title: 'Name',
    width: 'minmax(120px, 1.4fr)',
    cell: (n) => <b>{n.name}</b>,
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
    cell: (n) => (
      <span title={n.reason ?? undefined}>
        <Status tone={n.state === 'up' ? 'ok' : 'bad'} text={n.state === 'up' ? 'Up' : 'Down'} />
      </span>
    ),
    sort: (n) => n.state,
  },
  {
    key: 'subnet',
    title: 'Subnet',
    width: 'minmax(120px, 1fr)',
    from: 'tablet',
    cell: (n) => <span class="mono">{n.subnet ?? '–'}</span>,
  },
  {
    key: 'bridge',
    title: 'Bridge',
    width: '130px',
    from: 'desktop',
    cell: (n) => `${n.bridge ?? '–'}${n.vlan ? `, VLAN ${n.vlan}` : ''}`,
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

function CreateNetwork({ onClose }: { onClose(): void }) {
  const [name, setName] = useState('');
  const [type, setType] = useState<Network['type']>('user');
  const [bridge, setBridge] = useState('');
  const [vlan, setVlan] = useState<number | null>(null);
  const [subnet, setSubnet] = useState('');
  const [services, setServices] = useState(true);
  const body = {
    name,
    type,
    ...(type === 'bridge' ? { bridge: bridge || null, vlan } : {}),
    ...(type === 'nat' ? { subnet: subnet || null, dhcp: services, dns: services } : {}),
  };
  return (
    <FormDialog
      title="New network"
      action="Create"
      size="medium"
      ready={name.trim() !== ''}
      fields={['/name', '/bridge', '/vlan', '/subnet']}
      onClose={onClose}
      send={async () => {
        await post('/networks', body);
        await networks.load();
      }}
    >
      {(at) => (
        <>
          <div class="choices" role="radiogroup" aria-label="Type">
            {(Object.keys(TYPES) as Network['type'][]).filter(offered).map((t) => (
              <button
                key={t}
                type="button"
                class="choice"
                role="radio"
                aria-checked={type === t}
                onClick={() => setType(t)}
              >
                <b>{TYPES[t].label}</b>
                <span>{TYPES[t].hint}</span>
              </button>
            ))}
          </div>
          {at('/type') && <Banner tone="bad">{at('/type')}</Banner>}
          <div class="form">
            <TextField label="Name" value={name} onInput={setName} error={at('/name')} autoFocus />
            {type === 'bridge' && (
              <>
                <TextField
                  label="Bridge of the host"
                  placeholder="br0"
                  value={bridge}
                  onInput={setBridge}
                  error={at('/bridge')}
                />
                <NumberField
                  label="VLAN"
                  placeholder="none"
                  min={1}
                  max={4094}
                  value={vlan}
                  onInput={setVlan}
                  error={at('/vlan')}
                />
              </>
            )}
            {type === 'nat' && (
              <>
                <TextField
                  label="Subnet"
                  placeholder="10.20.0.0/24"
                  value={subnet}
                  onInput={setSubnet}
                  error={at('/subnet')}
                />
                <CheckField label="DHCP and DNS" checked={services} onInput={setServices} />
              </>
            )}
          </div>
        </>
      )}
    </FormDialog>
  );
}

const PORTS: Column<NetworkPort>[] = [
  {
    key: 'name',
    title: 'Machine',
    width: 'minmax(100px, 1fr)',
    cell: (p) => <a href={`#/machines/${p.machine}`}>{p.name}</a>,
  },
  { key: 'card', title: 'Card', width: '60px', cell: (p) => p.card + 1 },
  {
    key: 'mac',
    title: 'MAC address',
    width: '160px',
    cell: (p) => <span class="mono">{p.mac}</span>,
  },
  { key: 'vlan', title: 'VLAN', width: '70px', from: 'tablet', cell: (p) => p.vlan ?? '–' },
];

const LEASES: Column<NetworkLease>[] = [
  {
    key: 'address',
    title: 'Address',
    width: 'minmax(140px, 1.4fr)',
    cell: (l) => <span class="mono">{l.address}</span>,
  },
  { key: 'name', title: 'Name', width: 'minmax(100px, 1fr)', cell: (l) => l.name },
  {
    key: 'reserved',
    title: 'Reserved',
    width: '90px',
    from: 'tablet',
    cell: (l) => (l.reserved ? 'Yes' : '–'),
  },
];

function NetworkDetails({ network, onClose }: { network: Network; onClose(): void }) {
  const path = `/networks/${network.id}`;
  const ports = useLoaded(() => getAll<NetworkPort>(`${path}/ports`), [path], 5000);
  const leases = useLoaded(() => getAll<NetworkLease>(`${path}/leases`), [path], 5000);
  const problem = ports.problem ?? leases.problem;
  return (
    <Dialog title={network.name} size="large" onClose={onClose}>
      {problem && <Banner tone="bad">{problem}</Banner>}
      {network.reason && <Banner tone="bad">{network.reason}</Banner>}
      <Facts
        rows={[
          ['Type', TYPES[network.type].label],
          ['Gateway', network.gateway ?? '–'],
          ['IPv6', network.subnet6 ?? '–'],
          ['Domain', network.domain ?? '–'],
          ['MTU', network.mtu],
          ['Own addresses only', network.guard ? 'Yes' : 'No'],
        ]}
      />
      <h3>Cards of running machines</h3>
      <DataTable
        label="Cards of running machines"
        columns={PORTS}
        items={ports.value ?? []}
        keyOf={(p) => p.interface}
      />
      {network.dhcp && network.type !== 'user' && (
        <>
          <h3>Leases</h3>
          <DataTable
            label="Leases"
            columns={LEASES}
            items={leases.value ?? []}
            keyOf={(l) => l.address}
          />
        </>
      )}
    </Dialog>
  );
}

async function drop(network: Network): Promise<void> {
  const answer = await ask({
    title: `Delete the network ${network.name}?`,
    body: [
      network.machines
        ? `${count(network.machines, 'machine')} of this host refer to it; they must leave it first.`
        : 'No machine uses it.',
    ],
    action: 'Delete',
    danger: true,
  });
  if (answer === null) return;
  try {
    await remove(`/networks/${network.id}`);
    await networks.load();
  } catch (error) {
    notifyProblem(`${network.name} was not deleted`, error);
  }
}

export function Networks() {
  const list = useCollection(networks);
  const [creating, setCreating] = useState(false);
  const [open, setOpen] = useState<string | null>(null);
  const opened = list.find((n) => n.id === open);
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
      {networks.problem.value && <Banner tone="bad">{networks.problem.value}</Banner>}
      <div class="panel">
        {list.length || !networks.loaded.value ? (
          <DataTable
            label="Networks"
            columns={COLUMNS}
            items={list}
            keyOf={(n) => n.id}
            onOpen={(n) => setOpen(n.id)}
            actions={
              isAdministrator.value
                ? (n) => (
                    <Button
                      small
                      variant="ghost"
                      icon={Trash2}
                      label={`Delete ${n.name}`}
                      onClick={() => void drop(n)}
                    />
                  )
                : undefined
            }
          />
        ) : (
          <Empty icon={NetworkIcon} title="No networks" />
        )}
      </div>
      {opened && <NetworkDetails network={opened} onClose={() => setOpen(null)} />}
      {creating && <CreateNetwork onClose={() => setCreating(false)} />}
    </Page>
  );
}
