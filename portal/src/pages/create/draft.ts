// What the create wizard gathers, and the request it becomes. No user interface.
import type { MachineCreate } from '../../api/types';

export type Source = 'image' | 'iso' | 'template' | 'blank';

export interface Draft {
  source: Source;
  /** Name of the image or ISO, id of the template. */
  from: string;
  name: string;
  folder: string;
  tags: string;
  os: string;
  cpus: number;
  memory: number;
  disk: number;
  /** What the image needs: the disk is not smaller. */
  least: number;
  /** Of a template: stand on its disks instead of copying them. */
  linked: boolean;
  network: string;
  forward: string;
  datastore: string;
  pool: string;
  start: boolean;
  cloud: {
    on: boolean;
    user: string;
    password: string;
    keys: string;
    hostname: string;
    packages: string;
  };
}

const GIB = 1024 ** 3;

export function newDraft(): Draft {
  return {
    source: 'image',
    from: '',
    name: '',
    folder: '/',
    tags: '',
    os: '',
    cpus: 2,
    memory: 2 * GIB,
    disk: 20 * GIB,
    least: 0,
    linked: false,
    network: '',
    forward: '',
    datastore: '',
    pool: '',
    start: true,
    cloud: { on: false, user: '', password: '', keys: '', hostname: '', packages: '' },
  };
}

const words = (text: string): string[] => text.split(/[,\s]+/).filter(Boolean);
const NAME = /^[A-Za-z0-9_.-]{1,63}$/;

export const nameProblem = (name: string): string | null =>
  name === '' || NAME.test(name)
    ? null
    : 'Letters, digits, dot, hyphen and underscore, at most 63 of them.';

/** Steps that still lack something. */
export function missing(draft: Draft): { source: boolean; machine: boolean } {
  return {
    source: draft.source !== 'blank' && !draft.from,
    machine: !NAME.test(draft.name),
  };
}

export function toRequest(draft: Draft): MachineCreate {
  const { source, cloud } = draft;
  const request: MachineCreate = {
    name: draft.name,
    folder: draft.folder || '/',
    cpus: draft.cpus,
    memory: draft.memory,
    start: draft.start,
    networks:
      draft.network === 'none'
        ? []
        : [
            {
              ...(draft.network ? { network: draft.network } : {}),
              ...(draft.forward.trim() ? { forward: words(draft.forward) } : {}),
            },
          ],
  };
  if (draft.tags.trim()) request.tags = [...new Set(words(draft.tags))];
  if (draft.os) request.os = draft.os;
  if (draft.datastore) request.datastore = draft.datastore;
  if (draft.pool) request.pool = draft.pool;
  if (source === 'image') {
    request.image = draft.from;
    if (draft.disk > draft.least) request.disks = [{ capacity: draft.disk }];
  }
  if (source === 'template') {
    request.template = draft.from;
    if (draft.linked) request.linked = true;
    // Its own cards, unless another network was chosen.
    if (!draft.network && !draft.forward.trim()) delete request.networks;
  }
  if (source === 'iso') request.iso = draft.from;
  if (source === 'iso' || source === 'blank') request.disks = [{ capacity: draft.disk }];
  if (source === 'image' && cloud.on) {
    request.cloud_init = {
      ...(cloud.user ? { user: cloud.user } : {}),
      ...(cloud.password ? { password: cloud.password } : {}),
      ...(cloud.keys.trim()
        ? {
            ssh_keys: cloud.keys
              .split('\n')
              .map((k) => k.trim())
              .filter(Boolean),
          }
        : {}),
      hostname: cloud.hostname || draft.name,
      ...(cloud.packages.trim() ? { packages: words(cloud.packages) } : {}),
    } as unknown as MachineCreate['cloud_init'];
  }
  return request;
}

/** The step that shows the member a problem names. */
export function stepOf(pointer: string | null): string | null {
  if (!pointer) return null;
  if (/^\/(image|iso|template)/.test(pointer)) return 'source';
  if (/^\/cloud_init/.test(pointer)) return 'guest';
  if (/^\/(network)/.test(pointer)) return 'machine';
  return 'machine';
}
