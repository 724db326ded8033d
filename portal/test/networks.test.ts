import { describe, expect, it } from 'vitest';
import type { Network, NetworkPort } from '../src/api/types';
import {
  changeBody,
  createBody,
  draftOf,
  FRESH,
  parseVlans,
  waiting,
  wrongIn,
} from '../src/pages/networks/draft';
import { rulesOf } from '../src/pages/networks/types';

const LAN: Network = {
  id: '1',
  name: 'lan',
  type: 'nat',
  bridge: null,
  vlan: null,
  vlans: [],
  subnet: '10.64.0.0/24',
  subnet6: null,
  gateway: '10.64.0.1',
  dhcp: true,
  dns: true,
  domain: 'lan.internal',
  mtu: 1500,
  guard: true,
  reservations: { 'web-1': '10.64.0.50', 'web-2': '10.64.0.51' },
  interface: 'ml000000b000000',
  machines: 2,
  state: 'up',
  reason: null,
};
const OFFICE: Network = {
  ...LAN,
  name: 'office',
  type: 'bridge',
  bridge: 'br0',
  vlan: 20,
  vlans: [30],
  subnet: null,
  gateway: null,
  domain: null,
  dhcp: false,
  dns: false,
  reservations: {},
};
const port = (name: string, ...addresses: string[]): NetworkPort => ({
  machine: name,
  name,
  card: 0,
  mac: '02:00:00:00:00:01',
  interface: `tap-${name}`,
  addresses,
  vlan: null,
  vlans: [],
});

describe('VLANs as people write them', () => {
  it('are numbers and ranges, in any order', () => {
    expect(parseVlans('')).toEqual([]);
    expect(parseVlans('30-32, 20 31')).toEqual([20, 30, 31, 32]);
  });
  it('are from 1 to 4094', () => {
    for (const text of ['0', '4095', '5-4', 'x', '1-', '-3', '20;30', '1.5', '00020'])
      expect(parseVlans(text), text).toBeNull();
  });
});

describe("a network's draft", () => {
  const now = {
    ...FRESH,
    name: 'n',
    bridge: ' br0 ',
    vlan: 7,
    vlans: '8-9',
    subnet: '10.1.0.0/24',
    mtu: 9000,
    reservations: [
      { machine: ' a ', address: '10.1.0.5' },
      { machine: '', address: '' },
    ],
  };
  it('sends what its type has, nothing else', () => {
    expect(createBody('user', now)).toEqual({ type: 'user', name: 'n' });
    expect(createBody('bridge', now)).toEqual({
      type: 'bridge',
      name: 'n',
      bridge: 'br0',
      vlan: 7,
      vlans: [8, 9],
      mtu: 9000,
      guard: true,
      reservations: { a: '10.1.0.5' },
    });
    expect(createBody('nat', now)).toEqual({
      type: 'nat',
      name: 'n',
      subnet: '10.1.0.0/24',
      mtu: 9000,
      guard: true,
      dhcp: true,
      dns: true,
      reservations: { a: '10.1.0.5' },
    });
  });
  it('leaves IPv6 to the host, names a prefix, or wants none', () => {
    expect(createBody('nat', FRESH)).not.toHaveProperty('subnet6');
    expect(createBody('nat', { ...FRESH, ipv6: 'none' }).subnet6).toBeNull();
    expect(createBody('nat', { ...FRESH, ipv6: 'own', subnet6: ' fd00::/64' }).subnet6).toBe(
      'fd00::/64',
    );
  });
  it('sends only what was changed', () => {
    const draft = draftOf(LAN);
    expect(changeBody(LAN, draft)).toBeUndefined();
    expect(changeBody(LAN, { ...draft, mtu: 1400, vlans: '5' })).toEqual({ mtu: 1400 });
    expect(changeBody(LAN, { ...draft, reservations: draft.reservations.slice(1) })).toEqual({
      reservations: { 'web-1': null },
    });
    expect(changeBody(OFFICE, { ...draftOf(OFFICE), vlan: null, vlans: '30-31' })).toEqual({
      vlan: null,
      vlans: [30, 31],
    });
  });
  it('says what is wrong before it is sent', () => {
    expect(wrongIn(now)).toEqual({});
    const twice = [now.reservations[0]!, now.reservations[0]!];
    expect(Object.keys(wrongIn({ ...now, vlans: 'x', reservations: twice }))).toEqual([
      'vlans',
      'reservations',
    ]);
  });
});

describe('a reservation', () => {
  it('waits where its machine runs with another address', () => {
    expect(waiting(LAN, [port('web-1', '10.64.0.9'), port('web-3', '10.64.0.10')])).toMatchObject([
      { port: { name: 'web-1' }, has: '10.64.0.9', gets: '10.64.0.50' },
    ]);
  });
  it('holds where one of its cards has it, or it does not run', () => {
    expect(waiting(LAN, [port('web-1', '10.64.0.50'), port('web-1', '10.64.0.9')])).toEqual([]);
    expect(waiting(LAN, [])).toEqual([]);
  });
});

describe('the rules of a network', () => {
  it('are those of its type', () => {
    expect(rulesOf(LAN).join(' ')).toMatch(/addresses that DHCP gives.*only answers come in/s);
    expect(rulesOf({ ...LAN, guard: false })[0]).toMatch(/any address/);
    expect(rulesOf(OFFICE).join(' ')).toMatch(/VLAN 20.*VLAN 30/s);
    expect(rulesOf({ ...OFFICE, vlan: null, vlans: [] }).join(' ')).toMatch(/no other VLAN/);
    expect(rulesOf({ ...LAN, type: 'user' }).join(' ')).toMatch(/forwards/);
  });
});
