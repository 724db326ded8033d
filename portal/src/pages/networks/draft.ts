// What the forms of networks edit, and what of it is sent: lists as people write them, members only for
// the types that have them.
import type { Network, NetworkPort } from '../../api/types';
import { mergePatch } from '../../lib/patch';
import { isOurs, type NetworkType } from './types';

export interface Reservation {
  machine: string;
  address: string;
}

export interface NetworkDraft {
  name: string;
  bridge: string;
  vlan: number | null;
  vlans: string;
  subnet: string;
  ipv6: 'made' | 'own' | 'none';
  subnet6: string;
  dhcp: boolean;
  dns: boolean;
  domain: string;
  mtu: number;
  guard: boolean;
  reservations: Reservation[];
}

export const FRESH: NetworkDraft = {
  name: '',
  bridge: '',
  vlan: null,
  vlans: '',
  subnet: '',
  ipv6: 'made',
  subnet6: '',
  dhcp: true,
  dns: true,
  domain: '',
  mtu: 1500,
  guard: true,
  reservations: [],
};

export const draftOf = (network: Network): NetworkDraft => ({
  ...FRESH,
  name: network.name,
  bridge: network.bridge ?? '',
  vlan: network.vlan,
  vlans: network.vlans.join(', '),
  subnet: network.subnet ?? '',
  ipv6: network.subnet6 ? 'own' : 'none',
  subnet6: network.subnet6 ?? '',
  dhcp: network.dhcp,
  dns: network.dns,
  domain: network.domain ?? '',
  mtu: network.mtu,
  guard: network.guard,
  reservations: Object.entries(network.reservations).map(([machine, address]) => ({
    machine,
    address,
  })),
});

/** "20, 30-32" -> [20, 30, 31, 32]; null where it is no such list. */
export function parseVlans(text: string): number[] | null {
  const found = new Set<number>();
  for (const part of text.split(/[\s,]+/).filter(Boolean)) {
    const match = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part);
    const first = Number(match?.[1]);
    const last = Number(match?.[2] ?? first);
    if (!match || first < 1 || last > 4094 || first > last) return null;
    for (let id = first; id <= last; id++) found.add(id);
  }
  return [...found].sort((a, b) => a - b);
}

const reserved = (list: Reservation[]): Record<string, string> =>
  Object.fromEntries(
    list.filter((r) => r.machine.trim()).map((r) => [r.machine.trim(), r.address.trim()]),
  );

/** What is wrong before it is sent, by member. */
export function wrongIn(draft: NetworkDraft): Partial<Record<keyof NetworkDraft, string>> {
  const names = draft.reservations.map((r) => r.machine.trim());
  return {
    ...(parseVlans(draft.vlans) ? {} : { vlans: 'Numbers from 1 to 4094, like 20, 30-35.' }),
    ...(names.some((name, i) => name && names.indexOf(name) !== i)
      ? { reservations: 'A machine stands here twice.' }
      : {}),
  };
}

/** Members that can be changed later, too. */
function changeable(type: NetworkType, draft: NetworkDraft): Record<string, unknown> {
  const { name, vlan, dhcp, dns, domain, mtu, guard } = draft;
  const common = { mtu, guard, reservations: reserved(draft.reservations) };
  if (type === 'user') return { name };
  if (type === 'bridge') return { name, ...common, vlan, vlans: parseVlans(draft.vlans) ?? [] };
  return { name, ...common, dhcp, dns, ...(domain.trim() ? { domain: domain.trim() } : {}) };
}

/** The body that makes such a network. */
export function createBody(type: NetworkType, draft: NetworkDraft): Record<string, unknown> {
  const body = { ...changeable(type, draft), type };
  if (type === 'bridge') return { ...body, bridge: draft.bridge.trim() || null };
  if (!isOurs(type)) return body;
  const { ipv6, subnet, subnet6 } = draft;
  return {
    ...body,
    ...(subnet.trim() ? { subnet: subnet.trim() } : {}),
    ...(ipv6 === 'none' ? { subnet6: null } : {}),
    ...(ipv6 === 'own' ? { subnet6: subnet6.trim() } : {}),
  };
}

/** The merge patch that makes it so; undefined where nothing differs. */
export const changeBody = (network: Network, draft: NetworkDraft): unknown =>
  mergePatch(changeable(network.type, draftOf(network)), changeable(network.type, draft));

export interface Waiting {
  port: NetworkPort;
  has: string | null;
  gets: string;
}

/** Reservations that hold only from the next start of a machine that runs. */
export function waiting(network: Network, ports: NetworkPort[]): Waiting[] {
  return Object.entries(network.reservations).flatMap(([name, gets]) => {
    const own = ports.filter((p) => p.name === name);
    const first = own[0];
    if (!first || own.some((p) => p.addresses.includes(gets))) return [];
    return [{ port: first, has: first.addresses[0] ?? null, gets }];
  });
}
