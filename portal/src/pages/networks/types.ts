// The types of networks, as people read them.
import type { Network } from '../../api/types';

export type NetworkType = Network['type'];

export const TYPES: Record<NetworkType, { label: string; hint: string }> = {
  user: {
    label: 'User',
    hint: 'Out through the host, without privileges. Ports come in by forwarding.',
  },
  nat: { label: 'NAT', hint: 'A private subnet behind the host, with DHCP and DNS.' },
  bridge: { label: 'Bridge', hint: 'Straight on a network of the host, if wanted in a VLAN.' },
  isolated: { label: 'Isolated', hint: 'Machines among themselves, nothing else.' },
};

/** The host makes its bridge, and serves it. */
export const isOurs = (type: NetworkType): boolean => type === 'nat' || type === 'isolated';

/** What a guest may do there (docs/threat-model.md, "Networks of the host"). */
export function rulesOf(network: Network): string[] {
  const { type, guard } = network;
  if (type === 'user')
    return [
      'Each machine goes out by itself, as a program of the host would; machines do not see each other.',
      'Nothing comes in but by the ports that a card forwards.',
    ];
  const rules = [
    !guard
      ? 'Cards may send from any address.'
      : isOurs(type)
        ? 'Cards send from their own MAC address and from the addresses that DHCP gives them, nothing else.'
        : 'Cards send from their own MAC address; those with a reservation from that IPv4 address alone.',
  ];
  if (type === 'bridge')
    rules.push(
      network.vlan
        ? `What cards send untagged is in VLAN ${network.vlan}.`
        : 'What cards send untagged stays untagged.',
      network.vlans.length
        ? `Cards may be put into, or tag themselves, VLAN ${network.vlans.join(', ')}.`
        : 'Cards may use no other VLAN.',
    );
  if (type === 'nat')
    rules.push('Machines go out under the address of the host; only answers come in.');
  if (type === 'isolated') rules.push('Nothing leaves the network, and nothing comes in.');
  if (isOurs(type))
    rules.push('Of the host a machine reaches DHCP, DNS and echo on the gateway, nothing else.');
  return rules;
}

/** Members with a field of their own in the forms, as JSON pointers. */
export const NETWORK_FIELDS = [
  '/name',
  '/type',
  '/bridge',
  '/vlan',
  '/vlans',
  '/subnet',
  '/subnet6',
  '/dhcp',
  '/dns',
  '/domain',
  '/mtu',
  '/reservations',
];
