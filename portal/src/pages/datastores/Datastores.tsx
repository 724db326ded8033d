// Where disks, images and discs lie: the stores, and what is in each.
import { useState } from 'preact/hooks';
import { Database, Plus, Star, Trash2 } from '../../ui/icons';
import { patch, post } from '../../api/client';
import type { Datastore } from '../../api/types';
import { bytes, count } from '../../lib/format';
import { link, navigate } from '../../lib/router';
import { removeAsked } from '../../state/actions';
import { notifyProblem } from '../../state/notices';
import { datastores, isAdministrator } from '../../state/store';
import { Badge, Meter, Page } from '../../ui/bits';
import { Button } from '../../ui/Button';
import type { Column } from '../../ui/DataTable';
import { TextField } from '../../ui/Field';
import { Listing } from '../../ui/Listing';
import { FormDialog } from '../FormDialog';
import { useListed } from '../use-loaded';
import { FileBrowser } from './FileBrowser';

const COLUMNS: Column<Datastore>[] = [
  {
    key: 'name',
    title: 'Name',
    width: 'minmax(120px, 1.2fr)',
    cell: (d) => (
      <span class="name">
        <a href={link('datastores', d.id)}>{d.name}</a>{' '}
        {d.default && <Badge tone="info">default</Badge>}
      </span>
    ),
    sort: (d) => d.name,
  },
  {
    key: 'path',
    title: 'Folder of the host',
    width: 'minmax(140px, 2fr)',
    from: 'tablet',
    cell: (d) => (
      <span class="mono muted" title={d.path}>
        {d.path}
      </span>
    ),
  },
  {
    key: 'used',
    title: 'Space',
    width: 'minmax(190px, 1.6fr)',
    cell: (d) => (
      <Meter
        value={d.used}
        max={d.total}
        label={`Space of ${d.name}`}
        text={`${bytes(d.free)} free of ${bytes(d.total)}`}
      />
    ),
    sort: (d) => d.free,
  },
  {
    key: 'machines',
    title: 'Machines',
    width: '100px',
    align: 'end',
    from: 'tablet',
    cell: (d) => d.machines,
    sort: (d) => d.machines,
  },
];

function CreateDatastore({ onClose }: { onClose(): void }) {
  const [name, setName] = useState('');
  const [path, setPath] = useState('');
  return (
    <FormDialog
      title="New datastore"
      action="Create"
      ready={name.trim() !== '' && path.startsWith('/')}
      fields={['/name', '/path']}
      onClose={onClose}
      send={async () => {
        await post('/datastores', { name, path });
        await datastores.load();
      }}
    >
      {(at) => (
        <>
          <TextField label="Name" value={name} onInput={setName} error={at('/name')} autoFocus />
          <TextField
            label="Folder of the host"
            hint="An absolute path, to which the host may write."
            placeholder="/srv/machines"
            value={path}
            onInput={setPath}
            error={at('/path')}
          />
        </>
      )}
    </FormDialog>
  );
}

async function makeDefault(store: Datastore): Promise<void> {
  try {
    await patch(`/datastores/${store.id}`, { default: true });
    await datastores.load();
  } catch (error) {
    notifyProblem('The default stays', error);
  }
}

const forget = (store: Datastore): Promise<boolean> =>
  removeAsked({
    title: `Forget the datastore ${store.name}?`,
    body: [
      store.machines
        ? `${count(store.machines, 'machine')} in it must leave first.`
        : 'The host forgets it. Its files stay where they are.',
    ],
    action: 'Forget',
    path: `/datastores/${store.id}`,
    failed: `${store.name} stays`,
    then: () => datastores.load(),
  });

export function Datastores({ id, path }: { id?: string; path: string }) {
  const list = useListed(datastores);
  const [creating, setCreating] = useState(false);
  const store = id ? list.items.find((d) => d.id === id) : undefined;
  if (store) return <FileBrowser store={store} path={path} />;
  return (
    <Page
      title="Datastores"
      lead="Folders of the host that hold machines' disks, images and discs."
      actions={
        isAdministrator.value && (
          <Button icon={Plus} variant="primary" onClick={() => setCreating(true)}>
            New datastore
          </Button>
        )
      }
    >
      <Listing
        label="Datastores"
        list={list}
        nothing={{ icon: Database, title: 'No datastores' }}
        columns={COLUMNS}
        keyOf={(d) => d.id}
        nameOf={(d) => d.name}
        textOf={(d) => `${d.name} ${d.path}`}
        onOpen={(d) => navigate(link('datastores', d.id))}
        rowHeight={44}
        rowActions={
          isAdministrator.value
            ? (d) => [
                {
                  icon: Star,
                  label: `Make ${d.name} the default`,
                  disabled: d.default,
                  why: 'It is the default',
                  run: () => void makeDefault(d),
                },
                {
                  icon: Trash2,
                  label: `Forget ${d.name}`,
                  disabled: d.default,
                  why: 'The default datastore stays',
                  run: () => void forget(d),
                },
              ]
            : undefined
        }
      />
      {creating && <CreateDatastore onClose={() => setCreating(false)} />}
    </Page>
  );
}
