import { Facts, Panel } from '../../ui/bits';
import { count } from '../../lib/format';
import type { NetworkTabProps } from './NetworkPage';
import { isOurs, rulesOf, TYPES } from './types';

export function SummaryTab({ network, ports }: NetworkTabProps) {
  const mono = (text: string | null) => <span class="mono">{text ?? '–'}</span>;
  const ours = isOurs(network.type);
  const reserved = Object.keys(network.reservations).length;
  return (
    <div class="grid two">
      <Panel title="Network">
        <Facts
          rows={[
            ['Type', TYPES[network.type].label],
            ...(network.type === 'bridge'
              ? ([
                  ['Bridge of the host', mono(network.bridge)],
                  ['VLAN', network.vlan ?? 'none'],
                  ['Allowed VLANs', network.vlans.join(', ') || 'none'],
                ] as [string, preact.ComponentChildren][])
              : []),
            ...(ours
              ? ([
                  ['Subnet', mono(network.subnet)],
                  ['Gateway', mono(network.gateway)],
                  ['IPv6', mono(network.subnet6)],
                  ['Interface of the host', mono(network.interface)],
                ] as [string, preact.ComponentChildren][])
              : []),
            ...(network.type === 'user'
              ? []
              : ([['MTU', `${network.mtu} bytes`]] as [string, preact.ComponentChildren][])),
          ]}
        />
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
