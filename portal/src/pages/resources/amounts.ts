// What can be shared, reserved and limited, in the units that people use for it.
import type { Pool, ResourceKey } from '../../api/types';

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;

export type Amounts = Record<string, number | string | boolean | null | undefined>;

export interface LimitField {
  member: string;
  label: string;
  unit: string;
  scale: number;
}

export interface ResourceField {
  key: ResourceKey;
  title: string;
  unit: string;
  scale: number;
  /** Only what the host can promise: it knows how much CPU and memory it has. */
  limits: LimitField[];
}

const rate = (member: string, label: string): LimitField => ({
  member,
  label,
  unit: 'MiB/s',
  scale: MIB,
});
const iops = (member: string, label: string): LimitField => ({
  member,
  label,
  unit: '/s',
  scale: 1,
});

export const RESOURCES: ResourceField[] = [
  {
    key: 'cpu',
    title: 'CPU',
    unit: '% of a CPU',
    scale: 1,
    limits: [{ member: 'limit', label: 'CPU limit', unit: '% of a CPU', scale: 1 }],
  },
  {
    key: 'memory',
    title: 'Memory',
    unit: 'GiB',
    scale: GIB,
    limits: [{ member: 'limit', label: 'Memory limit', unit: 'GiB', scale: GIB }],
  },
  {
    key: 'disk',
    title: 'Disk',
    unit: 'MiB/s',
    scale: MIB,
    limits: [
      rate('limit', 'Disk bandwidth limit'),
      rate('read_limit', 'Read bandwidth limit'),
      rate('write_limit', 'Write bandwidth limit'),
      iops('iops_limit', 'Disk requests limit'),
      iops('read_iops_limit', 'Read requests limit'),
      iops('write_iops_limit', 'Write requests limit'),
    ],
  },
  {
    key: 'network',
    title: 'Network',
    unit: 'MiB/s',
    scale: MIB,
    limits: [
      rate('limit', 'Network bandwidth limit'),
      rate('in_limit', 'Incoming bandwidth limit'),
      rate('out_limit', 'Outgoing bandwidth limit'),
    ],
  },
];

const LEVELS = ['low', 'normal', 'high'];

/** "high" or "300 shares". */
export const sharesText = (shares: unknown): string =>
  typeof shares === 'number' ? `${shares} shares` : `${String(shares ?? 'normal')} shares`;

export const isLevel = (shares: unknown): boolean =>
  typeof shares === 'string' && LEVELS.includes(shares);

export const amountText = (n: number, { unit, scale }: { unit: string; scale: number }): string =>
  `${Number((n / scale).toFixed(2))} ${unit === '% of a CPU' ? '%' : unit}`;

/** One line: what is other than at first. */
export function summary(field: ResourceField, amounts: Amounts | undefined): string {
  const parts = [sharesText(amounts?.shares)];
  if (amounts?.reservation) parts.push(`${amountText(Number(amounts.reservation), field)} kept`);
  for (const limit of field.limits) {
    const n = amounts?.[limit.member];
    if (typeof n !== 'number') continue;
    const what = field.limits.length > 1 ? limit.label.replace(/ limit$/, '').toLowerCase() : '';
    parts.push(`${what} ${amountText(n, limit)} at most`.trim());
  }
  return parts.join(', ');
}

const normal = (key: ResourceKey): Amounts => {
  const { limits } = RESOURCES.find((r) => r.key === key)!;
  const none = Object.fromEntries(limits.map((l) => [l.member, null]));
  return { shares: 'normal', reservation: 0, ...none };
};
export const NORMAL: Record<ResourceKey, Amounts> = {
  cpu: normal('cpu'),
  memory: normal('memory'),
  disk: normal('disk'),
  network: normal('network'),
};

/** Pools as a tree: each with its depth, children behind their parent. */
export function poolTree(list: Pool[]): { pool: Pool; depth: number }[] {
  const out: { pool: Pool; depth: number }[] = [];
  const visit = (parent: string | null, depth: number): void => {
    for (const pool of list
      .filter((p) => (p.parent ?? null) === parent)
      .sort((a, b) => a.name.localeCompare(b.name))) {
      out.push({ pool, depth });
      if (depth < 16) visit(pool.id, depth + 1);
    }
  };
  visit(null, 0);
  return out;
}
