import type { ComponentChildren } from 'preact';
import type { Network } from '../../api/types';
import { count } from '../../lib/format';
import { Facts, Panel } from '../../ui/bits';
import type { NetworkTabProps } from './NetworkPage';
import { isOurs, rulesOf, TYPES } from './types';

type Row = [string, ComponentChildren];

const mono = (text: string | null) => <span class="mono">{text ?? '–'}</span>;

function rowsOf(network: Network): Row[] {
  const rows: Row[] = [['Type', TYPES[network.type].label]];
  if (network.type === 'bridge')
    rows.push(
      ['Bridge of the host', mono(network.bridge)],
      ['VLAN', network.vlan ?? 'none'],
      ['Allowed VLANs', network.vlans.join(', ') || 'none'],
    );
  if (isOurs(network.type))
    rows.push(
      ['Subnet', mono(network.subnet)],
      ['Gateway', mono(network.gateway)],
      ['IPv6', mono(network.subnet6)],
      ['Interface of the host', mono(network.interface)],
    );
  if (network.type !== 'user') rows.push(['MTU', `${network.mtu} bytes`]);
  return rows;
}

export function SummaryTab({ network, ports }: NetworkTabProps) {
  const reserved = Object.keys(network.reservations).length;
  return (
    <div class="grid">
      <Panel title="Network">
        <Facts rows={rowsOf(network)} />
      </Panel>
      <Panel title="Services">
        <Facts
          rows={[
            ['Machines', `${network.machines}, ${count(ports.length, 'card')} running`],
            ['DHCP', network.dhcp ? 'On' : 'Off'],
            ['DNS', network.dns ? 'On' : 'Off'],
            ['Domain', mono(network.domain)],
            ['Reserved addresses', reserved || 'none'],
          ]}
        />
      </Panel>
      <Panel title="What machines may do" wide>
        <ul class="rules">
          {rulesOf(network).map((rule) => (
            <li key={rule}>{rule}</li>
          ))}
        </ul>
      </Panel>
    </div>
  );
}
