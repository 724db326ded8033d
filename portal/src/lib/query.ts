// The machine list's filter line: words are looked for in names, `state:running`, `tag:web`,
// `folder:/prod`, `os:debian`, `network:lan` and `pool:` narrow by member; `-` in front turns one around.
import type { MachineSummary } from '../api/types';

interface Term {
  member: string;
  value: string;
  negated: boolean;
}

export function parseQuery(text: string): Term[] {
  const terms: Term[] = [];
  for (const match of text.matchAll(/(-)?(?:(\w+):)?(?:"([^"]*)"|(\S+))/g)) {
    const value = (match[3] ?? match[4] ?? '').toLowerCase();
    if (value) terms.push({ member: (match[2] ?? '').toLowerCase(), value, negated: !!match[1] });
  }
  return terms;
}

function holds(machine: MachineSummary, { member, value }: Term): boolean {
  switch (member) {
    case 'state':
      return machine.state === value;
    case 'tag':
      return machine.tags.some((tag) => tag.toLowerCase() === value);
    case 'folder':
      return inFolder(machine.folder.toLowerCase(), value);
    case 'os':
      return (machine.os ?? '').toLowerCase().includes(value);
    case 'pool':
      return machine.pool?.toLowerCase() === value;
    case 'network':
      return machine.networks.some((network) => network.toLowerCase() === value);
    case 'datastore':
      return machine.datastore?.toLowerCase() === value;
    case 'is':
      return value === 'pending' ? machine.pending : machine.state === value;
    case '':
      return (
        machine.name.toLowerCase().includes(value) ||
        machine.addresses.some((a) => a.includes(value)) ||
        machine.description.toLowerCase().includes(value)
      );
    default:
      return machine.name.toLowerCase().includes(`${member}:${value}`);
  }
}

export const inFolder = (folder: string, parent: string): boolean =>
  parent === '/' || folder === parent || folder.startsWith(`${parent}/`);

export function filterMachines(machines: MachineSummary[], text: string): MachineSummary[] {
  const terms = parseQuery(text);
  if (!terms.length) return machines;
  return machines.filter((m) => terms.every((term) => holds(m, term) !== term.negated));
}
