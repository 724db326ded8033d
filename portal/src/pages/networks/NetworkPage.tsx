// One network: what it is and enforces, who is on it, its settings, its events, who may use it.
import { MonitorX, Trash2 } from '../../ui/icons';
import { get, getAll } from '../../api/client';
import { Problem } from '../../api/problem';
import type { Network, NetworkPort } from '../../api/types';
import { link, navigate } from '../../lib/router';
import { events, isAdministrator, networks } from '../../state/store';
import { Badge, Banner, Empty, Page, Tabs } from '../../ui/bits';
import { Button } from '../../ui/Button';
import { GrantTable } from '../access/GrantTable';
import { ObjectEvents } from '../ObjectEvents';
import { useCollection, useLoaded } from '../use-loaded';
import { waiting } from './draft';
import { MachinesTab } from './MachinesTab';
import { dropNetwork, NetworkState } from './Networks';
import { SettingsTab } from './SettingsTab';
import { SummaryTab } from './SummaryTab';
import { TYPES } from './types';

export interface NetworkTabProps {
  network: Network;
  ports: NetworkPort[];
}

const TABS = [
  { name: '', text: 'Summary', view: SummaryTab },
  { name: 'machines', text: 'Machines', view: MachinesTab },
  { name: 'settings', text: 'Settings', view: SettingsTab },
  { name: 'events', text: 'Events', view: EventsTab },
  { name: 'permissions', text: 'Permissions', view: PermissionsTab },
];

function EventsTab({ network }: NetworkTabProps) {
  const object = `network:${network.id}`;
  const turn = events.value.find((e) => e.object === object)?.id ?? 0;
  return <ObjectEvents object={object} turn={turn} />;
}

function PermissionsTab({ network }: NetworkTabProps) {
  if (!isAdministrator.value)
    return <Banner tone="info">Administrators see and change who may do what.</Banner>;
  return <GrantTable title="Granted on this network" object={`network:${network.id}`} />;
}

export function NetworkPage({ id, tab }: { id: string; tab: string }) {
  const known = useCollection(networks).find((n) => n.id === id);
  const own = useLoaded(() => get<Network>(`/networks/${id}`), [id]);
  const ports = useLoaded(() => getAll<NetworkPort>(`/networks/${id}/ports`), [id], 5000);
  const network = known ?? (networks.loaded.value ? undefined : own.value);
  if (!network) {
    const gone =
      networks.loaded.value || (own.error instanceof Problem && own.error.status === 404);
    return (
      <Page title="Network">
        {gone ? (
          <Empty icon={MonitorX} title="There is no such network">
            <a href="#/networks">All networks</a>
          </Empty>
        ) : (
          own.problem && <Banner tone="bad">{own.problem}</Banner>
        )}
      </Page>
    );
  }
  const held = waiting(network, ports.value ?? []);
  const current = TABS.find((t) => t.name === tab) ?? TABS[0]!;
  const View = current.view;
  const at = (name: string): string => (name ? link('networks', id, name) : link('networks', id));
  return (
    <Page
      title={network.name}
      lead={
        <span class="machine-lead">
          <NetworkState network={network} />
          <Badge>{TYPES[network.type].label}</Badge>
          {network.subnet && <span class="mono">{network.subnet}</span>}
        </span>
      }
      actions={
        isAdministrator.value && (
          <Button
            icon={Trash2}
            onClick={() => void dropNetwork(network).then((done) => done && navigate('#/networks'))}
          >
            Delete
          </Button>
        )
      }
    >
      {network.reason && <Banner tone="bad">{network.reason}</Banner>}
      {ports.problem && <Banner tone="bad">{ports.problem}</Banner>}
      {held.length > 0 && (
        <section class="pending" aria-label="Pending changes">
          <Banner tone="warn">
            <b>Reservations that wait for the next start</b>
            <ul>
              {held.map(({ port, has, gets }) => (
                <li key={port.machine}>
                  <a href={link('machines', port.machine)}>{port.name}</a>{' '}
                  <del>{has ?? 'no address'}</del> → <ins>{gets}</ins>
                </li>
              ))}
            </ul>
          </Banner>
        </section>
      )}
      <Tabs
        label="Network"
        current={at(current.name)}
        items={TABS.map((t) => ({
          href: at(t.name),
          text: t.text,
          badge: t.name === 'machines' ? network.machines : 0,
        }))}
      />
      <View network={network} ports={ports.value ?? []} />
    </Page>
  );
}
