// The mock's other lists, and what is uploaded and imported into them.
import { randomBytes, randomUUID } from 'node:crypto';
import * as data from './data.mjs';
import { Refusal, merge } from './helpers.mjs';
import { create } from './machines.mjs';

const GIB = 1024 ** 3;

export function uploadRoute(api, method, id, body) {
  if (method === 'POST') {
    const upload = {
      id: randomUUID(),
      name: body.name,
      offset: 0,
      size: body.size,
      sha256: null,
      expires: data.ago(-86400),
    };
    api.uploads.set(upload.id, upload);
    return { status: 201, body: upload };
  }
  const upload = api.uploads.get(id);
  if (!upload) throw new Refusal(404, 'not-found', 'There is no such upload.');
  if (method === 'DELETE') api.uploads.delete(id);
  return method === 'DELETE' ? { status: 204 } : { status: 200, body: upload };
}

export function importRoute(api, body) {
  const upload = api.uploads.get(body.upload);
  if (!upload || upload.offset !== upload.size)
    throw new Refusal(409, 'conflict', 'The upload is not complete.', '/upload');
  return api.task('import', null, body.name, ['Reading the package', 'Converting disks'], () => {
    if (body.kind === 'appliance') create(api, { name: body.name, cpus: 2, memory: 2 * GIB });
    else
      api.lists.images.push({
        ...data.IMAGES[0],
        name: body.name,
        kind: body.kind === 'iso' ? 'iso' : 'image',
        created: new Date().toISOString(),
      });
    api.emit({
      type: 'changed',
      object: `image:${body.name}`,
      object_name: body.name,
      data: {},
    });
  });
}

const isOurs = (network) => network.type === 'nat' || network.type === 'isolated';

// The ports or leases of a network: those of its machines that run. A reservation holds from the next start,
// so that all have other addresses than those.
function networkPart(api, network, what) {
  const running = [...api.machines.values()].filter(
    (m) => m.state === 'running' && m.networks.includes(network.name) && network.type !== 'user',
  );
  return running.map((m, i) => {
    const mac = m.config.networks[0].mac;
    const address = `${network.subnet?.replace(/\d+\/\d+$/, '') ?? '10.20.0.'}${20 + i}`;
    return what === 'ports'
      ? {
          machine: m.id,
          name: m.name,
          card: 0,
          mac,
          interface: `ml3f81c2t${(0x4d10a0 + i).toString(16)}`,
          addresses: isOurs(network) ? [address] : [],
          vlan: network.vlan,
          vlans: [],
        }
      : {
          address,
          mac,
          name: m.name,
          machine: m.id,
          machine_name: m.name,
          expires: data.ago(-43200),
          reserved: network.reservations[m.name] === address,
        };
  });
}

const networkBody = (api, network) => ({
  ...network,
  machines: [...api.machines.values()].filter((m) => m.networks.includes(network.name)).length,
});

/** What the host makes of a network's body. */
function completeNetwork(body) {
  const ours = isOurs(body);
  if (body.mtu < 1280 || body.mtu > 9216)
    throw new Refusal(422, 'invalid', 'must be 1280 to 9216', '/mtu');
  if (body.subnet && !/^[\d.]+\/\d+$/.test(body.subnet))
    throw new Refusal(422, 'invalid', 'must be a subnet like 10.20.0.0/24', '/subnet');
  for (const [name, address] of Object.entries(body.reservations ?? {}))
    if (!/^\d+\.\d+\.\d+\.\d+$/.test(address))
      throw new Refusal(422, 'invalid', `${name}: must be an IPv4 address`, '/reservations');
  const subnet = ours ? (body.subnet ?? '10.64.0.0/24') : null;
  return {
    bridge: null,
    vlan: null,
    vlans: [],
    gateway: subnet && subnet.replace(/0\/\d+$/, '1'),
    subnet6: ours ? 'fd6d:756c:6c00:2::/64' : null,
    dhcp: ours,
    dns: ours,
    domain: ours ? `${body.name}.internal` : null,
    mtu: 1500,
    guard: body.type !== 'user',
    reservations: {},
    interface: ours ? 'ml3f81c2b77aa01' : (body.bridge ?? null),
    ...body,
    subnet,
  };
}

function tellNetwork(api, network, what) {
  const object = `network:${network.id}`;
  api.emit({ type: what === 'deleted' ? 'removed' : 'changed', object, data: {} });
  api.emit({
    type: `network.${what}`,
    object,
    object_name: network.name,
    text: `network ${network.name} was ${what}`,
  });
}

export function listRoute(api, method, [first, id, what], query, body) {
  const list = api.lists[first];
  const key = ['users', 'groups', 'images'].includes(first) ? 'name' : 'id';
  const at = list.findIndex((x) => x[key] === id);
  if (id && at < 0) throw new Refusal(404, 'not-found', 'There is none.');
  if (method === 'GET' && first === 'networks' && what)
    return api.page(networkPart(api, list[at], what), query);
  const shown = (x) => (first === 'networks' ? networkBody(api, x) : x);
  if (method === 'GET')
    return id ? { status: 200, body: shown(list[at]) } : api.page(list.map(shown), query);
  if (method === 'DELETE') {
    if (first === 'networks') tellNetwork(api, list[at], 'deleted');
    list.splice(at, 1);
    return { status: 204 };
  }
  if (method === 'PATCH') {
    const changed = merge(list[at], body);
    if (first === 'networks') {
      completeNetwork(changed);
      tellNetwork(api, changed, 'changed');
    }
    list[at] = changed;
    return { status: 200, body: shown(list[at]) };
  }
  if (first === 'images')
    return api.task(
      'image.build',
      null,
      body.name,
      ['Fetching packages', 'Making the file system'],
      () => null,
      4000,
    );
  if (list.some((x) => x.name && x.name === body.name))
    throw new Refusal(409, 'conflict', `${body.name} exists already.`, '/name');
  if (first === 'templates')
    return api.task('template.create', null, body.name, ['Copying the disk'], () => {
      const template = data.template(body.name, body.description);
      list.push(template);
      api.emit({ type: 'changed', object: `template:${template.id}`, data: {} });
    });
  const { password, ...kept } = body;
  void password;
  const made = {
    id: randomUUID(),
    created: new Date().toISOString(),
    last_used: null,
    machines: 0,
    groups: [],
    user: 'admin',
    state: 'up',
    reason: null,
    ...(first === 'networks' ? completeNetwork(kept) : kept),
  };
  list.push(made);
  if (first === 'networks') tellNetwork(api, made, 'created');
  return {
    status: 201,
    body:
      first === 'tokens'
        ? { ...made, token: `mul_${randomBytes(20).toString('base64url')}` }
        : made,
  };
}

export function files(api, path) {
  const folder = (name) => ({
    name,
    kind: 'folder',
    size: 0,
    modified: data.ago(86400),
    used_by: null,
  });
  const file = (name, size, used) => ({
    name,
    kind: 'file',
    size,
    modified: data.ago(size % 864000),
    used_by: used ?? null,
  });
  if (!path)
    return [
      folder('machines'),
      folder('images'),
      folder('isos'),
      folder('templates'),
      file('inventory-note.txt', 1240),
    ];
  if (path === 'images' || path === 'isos')
    return api.lists.images
      .filter((i) => (i.kind === 'iso') === (path === 'isos'))
      .map((i) => file(`${i.name}.${i.format}`, i.size, `image:${i.name}`));
  if (path === 'machines') return [...api.machines.values()].slice(0, 40).map((m) => folder(m.id));
  const machine = api.machines.get(path.split('/')[1]);
  return machine
    ? [
        file('machine.json', 1822, `machine:${machine.id}`),
        file(`${machine.name}.qcow2`, 7.4 * GIB, `machine:${machine.id}`),
        file('nvram', 540672, `machine:${machine.id}`),
        file('log', 48211),
      ]
    : [];
}

export function append(api, id, request, bytes) {
  const upload = api.uploads.get(id);
  if (!upload) throw new Refusal(404, 'not-found', 'There is no such upload.');
  if (api.failUploads > 0) {
    api.failUploads--;
    throw new Refusal(503, 'unavailable', 'Try again.');
  }
  if (Number(request.headers['upload-offset']) !== upload.offset)
    throw new Refusal(409, 'conflict', `The upload stands at ${upload.offset}.`);
  upload.offset += bytes.length;
  return { status: 200, body: upload };
}
