// The mock's inventory: the same at every start, but for its times.
import { createHash, randomUUID } from 'node:crypto';
import { makePools, RESOURCES } from './pools.mjs';

const GIB = 1024 ** 3;

export function uuid(text) {
  const h = createHash('sha256').update(text).digest('hex');
  return `${h.slice(0, 8)}-${h.slice(8, 12)}-4${h.slice(13, 16)}-a${h.slice(17, 20)}-${h.slice(20, 32)}`;
}

/** A small deterministic generator (mulberry32). */
export function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export const ago = (seconds) => new Date(Date.now() - seconds * 1000).toISOString();

const KINDS = [
  {
    prefix: 'web',
    folder: '/prod/web',
    tags: ['web', 'prod'],
    os: 'debian12-64',
    cpus: 2,
    memory: 2,
    load: 22,
  },
  {
    prefix: 'api',
    folder: '/prod/api',
    tags: ['api', 'prod'],
    os: 'debian12-64',
    cpus: 4,
    memory: 4,
    load: 38,
  },
  {
    prefix: 'db',
    folder: '/prod/db',
    tags: ['db', 'prod', 'backup'],
    os: 'debian12-64',
    cpus: 8,
    memory: 16,
    load: 55,
  },
  {
    prefix: 'ci',
    folder: '/build',
    tags: ['ci'],
    os: 'ubuntu24-64',
    cpus: 4,
    memory: 8,
    load: 70,
  },
  {
    prefix: 'dev',
    folder: '/dev',
    tags: ['dev'],
    os: 'debian12-64',
    cpus: 2,
    memory: 4,
    load: 6,
  },
  {
    prefix: 'win',
    folder: '/office',
    tags: ['windows'],
    os: 'windows2022-64',
    cpus: 4,
    memory: 8,
    load: 12,
  },
  {
    prefix: 'fw',
    folder: '/network',
    tags: ['network'],
    os: 'freebsd14-64',
    cpus: 1,
    memory: 1,
    load: 4,
  },
];

export const DATASTORES = [
  {
    name: 'default',
    path: '/var/lib/mullion/datastores/default',
    total: 3840,
    used: 2190,
    default: true,
  },
  { name: 'archive', path: '/srv/archive', total: 7680, used: 6750, default: false },
].map((d) => ({
  id: uuid(`store ${d.name}`),
  ...d,
  total: d.total * 1e9,
  used: d.used * 1e9,
  free: (d.total - d.used) * 1e9,
  machines: 0,
}));

/** Which network machines of a kind are on. */
const networkOf = (kind) =>
  ({ db: 'servers', dev: 'lab', fw: 'servers' })[kind.prefix] ?? 'default';

function configOf(kind, name) {
  const network = networkOf(kind);
  return {
    name,
    firmware: 'uefi',
    cpus: kind.cpus,
    memory: kind.memory * GIB,
    engine: 'auto',
    boot: { order: ['disk', 'cdrom'] },
    disks: [{ path: `${name}.qcow2`, format: 'qcow2', bus: 'virtio' }],
    cdroms: [],
    networks: [
      {
        type: network === 'default' ? 'user' : 'host',
        name: network,
        model: 'virtio',
        mac: `52:54:00:${createHash('sha256').update(name).digest('hex').slice(0, 6).match(/../g).join(':')}`,
        ...(network === 'default' ? { forward: ['tcp:8080:80'] } : {}),
      },
    ],
  };
}

export function makeMachine(kind, name, next, state) {
  const live = state === 'running' || state === 'paused';
  const up = Math.round(next() ** 2 * 86400 * 40) + 400;
  const share = Math.min(0.97, (kind.load / 100) * (0.35 + next() * 1.2));
  const id = uuid(`machine ${name}`);
  return {
    id,
    name,
    description: kind.prefix === 'db' ? 'PostgreSQL 15, primary and standbys' : '',
    folder: kind.folder,
    tags: kind.tags,
    state,
    state_reason:
      state === 'crashed' ? 'The guest panicked (pvpanic): VFS: Unable to mount root fs' : null,
    pending: false,
    autostart: { enabled: kind.tags.includes('prod'), order: 10, delay: 5 },
    pool: kind.tags.includes('prod') ? uuid('pool production') : null,
    datastore: DATASTORES[0].id,
    networks: [networkOf(kind)],
    os: kind.os,
    cpus: kind.cpus,
    memory: kind.memory * GIB,
    engine: live ? 'kvm' : null,
    uptime: live ? up : null,
    addresses: live
      ? [
          `10.20.${(Number.parseInt(id.slice(0, 4), 16) % 16) + 1}.${(Number.parseInt(id.slice(4, 8), 16) % 250) + 2}`,
        ]
      : [],
    usage: live
      ? {
          cpu: state === 'paused' ? 0 : share * kind.cpus * 100,
          memory: Math.round(kind.memory * GIB * (0.3 + next() * 0.6)),
        }
      : { cpu: 0, memory: 0 },
    task: null,
    created: ago(86400 * (50 + next() * 300)),
    changed: ago(up),
    started: live ? ago(up) : null,
    config: configOf(kind, name),
    pending_config: null,
    resources: structuredClone(RESOURCES),
    granted: null,
  };
}

export function makeMachines(total) {
  const next = random(7);
  const list = [];
  for (let i = 0; i < total; i++) {
    const kind = KINDS[Math.min(KINDS.length - 1, Math.floor(next() ** 1.2 * KINDS.length))];
    const roll = next();
    const state =
      i === 3 ? 'crashed' : roll < 0.72 ? 'running' : roll < 0.95 ? 'stopped' : 'paused';
    list.push(makeMachine(kind, `${kind.prefix}-${i + 1}`, next, state));
  }
  const first = list.find((m) => m.state === 'running' && m.name.startsWith('web'));
  if (first) {
    first.pending = true;
    first.pending_config = { ...first.config, cpus: 4, memory: 4 * GIB };
  }
  return list;
}

export function makeSeries(seed, range, scale) {
  const step = { hour: 20, day: 300, month: 7200, year: 86400 }[range];
  const length = { hour: 180, day: 288, month: 372, year: 365 }[range];
  const next = random(seed);
  const wave = (level, rough, gap = 0) => {
    let value = level;
    return Array.from({ length }, (_, i) => {
      value += (level - value) * 0.12 + (next() - 0.5) * rough;
      const swing = 1 + 0.22 * Math.sin(i / 23) + 0.1 * Math.sin(i / 7);
      return i < gap ? null : Math.max(0, value * swing);
    });
  };
  return {
    range,
    step,
    from: ago(step * length),
    series: {
      cpu: wave(scale.cpu, scale.cpu * 0.5),
      memory: wave(scale.memory, scale.memory * 0.02),
      disk_read: wave(3e6, 6e6).map((v) => (v === null || next() < 0.6 ? v * 0.2 : v * 3)),
      disk_write: wave(6e6, 5e6),
      net_rx: wave(9e6, 6e6),
      net_tx: wave(5e6, 4e6),
    },
  };
}

export const template = (name, description) => ({
  id: randomUUID(),
  name,
  description: description ?? '',
  created: ago(86400),
  state: 'ready',
  datastore: DATASTORES[0].id,
  size: 2.1 * GIB,
  os: 'debian12-64',
  cpus: 2,
  memory: 2 * GIB,
  linked: 0,
});

export const IMAGES = [
  ['debian-12', 'image', 'debian12-64', 'qcow2', 20, 0.42],
  ['debian-13', 'image', 'debian13-64', 'qcow2', 20, 0.45],
  ['ubuntu-24.04', 'image', 'ubuntu24.04-64', 'qcow2', 24, 0.61],
  ['alpine-3.22', 'image', 'alpine3.22-64', 'qcow2', 4, 0.09],
  ['debian-12-netinst', 'iso', 'debian12-64', 'iso', 0.66, 0.66],
  ['windows-server-2022', 'iso', 'windows2022-64', 'iso', 4.7, 4.7],
].map(([name, kind, os, format, capacity, size], i) => ({
  name,
  kind,
  state: 'ready',
  os,
  format,
  capacity: Math.round(capacity * GIB),
  size: Math.round(size * GIB),
  datastore: DATASTORES[0].id,
  sha256: createHash('sha256').update(name).digest('hex'),
  created: ago(86400 * (3 + i * 11)),
}));

export const NETWORKS = [
  {
    name: 'default',
    type: 'user',
    bridge: null,
    vlan: null,
    subnet: null,
    dhcp: true,
    dns: true,
  },
  {
    name: 'servers',
    type: 'bridge',
    bridge: 'br0',
    vlan: 20,
    subnet: null,
    dhcp: false,
    dns: false,
  },
  {
    name: 'lab',
    type: 'nat',
    bridge: null,
    vlan: null,
    subnet: '10.77.0.0/24',
    dhcp: true,
    dns: true,
  },
  {
    name: 'quarantine',
    type: 'isolated',
    bridge: null,
    vlan: null,
    subnet: null,
    dhcp: false,
    dns: false,
    state: 'down',
    reason: 'dnsmasq has ended: Address already in use',
  },
].map((n) => ({
  id: uuid(`network ${n.name}`),
  state: 'up',
  reason: null,
  vlans: n.type === 'bridge' ? [20, 30] : [],
  subnet6: n.type === 'nat' ? 'fd6d:756c:6c00:1::/64' : null,
  gateway: n.type === 'nat' ? n.subnet.replace('.0/24', '.1') : null,
  domain: n.type === 'nat' ? `${n.name}.internal` : null,
  mtu: 1500,
  guard: n.type !== 'user',
  reservations: {},
  interface: n.bridge ?? (n.type === 'user' ? null : `ml3f81c2b${n.name.length}a5d0e`),
  ...n,
}));

export const POOLS = makePools(uuid);

export const USERS = [
  {
    name: 'admin',
    full_name: 'Ada Lindqvist',
    role: 'administrator',
    groups: ['platform'],
    enabled: true,
    last_login: ago(60),
  },
  {
    name: 'marek',
    full_name: 'Marek Novotný',
    role: 'operator',
    groups: ['platform', 'web'],
    enabled: true,
    last_login: ago(5400),
  },
  {
    name: 'yuki',
    full_name: 'Yuki Tanaka',
    role: 'operator',
    groups: ['db'],
    enabled: true,
    last_login: ago(86400 * 3),
  },
  {
    name: 'auditor',
    full_name: 'External audit',
    role: 'viewer',
    groups: [],
    enabled: true,
    last_login: null,
  },
  {
    name: 'tomas',
    full_name: 'Tomás Ferreira',
    role: 'none',
    groups: ['web'],
    enabled: false,
    last_login: ago(86400 * 90),
  },
];

export const GROUPS = [
  { name: 'platform', description: 'Runs the hosts', members: ['admin', 'marek'] },
  { name: 'web', description: 'Web servers and their releases', members: ['marek', 'tomas'] },
  { name: 'db', description: 'Databases', members: ['yuki'] },
];

export const GRANTS = [
  { subject: 'group:web', role: 'operator', object: 'folder:/prod/web' },
  { subject: 'group:db', role: 'operator', object: 'folder:/prod/db' },
  { subject: 'user:auditor', role: 'viewer', object: 'folder:/prod' },
  { subject: 'user:tomas', role: 'operator', object: `network:${NETWORKS[2].id}` },
].map((g) => ({ id: uuid(`grant ${g.subject} ${g.object}`), ...g }));

export const TOKENS = [
  {
    name: 'terraform',
    user: 'admin',
    role: 'operator',
    expires: new Date(Date.now() + 86400e3 * 60).toISOString(),
    last_used: ago(240),
  },
  { name: 'prometheus', user: 'admin', role: 'viewer', expires: null, last_used: ago(15) },
  {
    name: 'old-backup',
    user: 'marek',
    role: 'viewer',
    expires: new Date(Date.now() + 86400e3 * 4).toISOString(),
    last_used: ago(86400 * 20),
  },
].map((t) => ({ id: uuid(`token ${t.name}`), created: ago(86400 * 30), ...t }));
