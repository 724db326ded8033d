// Images to make machines from, and ISOs to put into their drives.
import { useState } from 'preact/hooks';
import { Disc3, Hammer, Plus, Trash2, Upload } from '../ui/icons';
import { post } from '../api/client';
import type { Image, Task } from '../api/types';
import { openImport, surface } from '../app/ui-state';
import { ago, bytes, osName } from '../lib/format';
import { navigate } from '../lib/router';
import { removeAsked } from '../state/actions';
import { has, images, mayChange, putTask } from '../state/store';
import { Badge, Page } from '../ui/bits';
import { Button } from '../ui/Button';
import type { Column } from '../ui/DataTable';
import { TextField } from '../ui/Field';
import { Listing } from '../ui/Listing';
import { FormDialog } from './FormDialog';
import { TemplatePanel } from './Templates';
import { useListed } from './use-loaded';

const COLUMNS: Column<Image>[] = [
  {
    key: 'name',
    title: 'Name',
    width: 'minmax(150px, 2fr)',
    cell: (i) => <b>{i.name}</b>,
    sort: (i) => i.name,
  },
  {
    key: 'kind',
    title: 'Kind',
    width: '90px',
    cell: (i) => (
      <Badge tone={i.state === 'ready' ? undefined : 'info'}>
        {i.state === 'ready' ? (i.kind === 'iso' ? 'ISO' : 'Image') : i.state}
      </Badge>
    ),
    sort: (i) => i.kind,
  },
  {
    key: 'os',
    title: 'System',
    width: 'minmax(110px, 1fr)',
    from: 'tablet',
    cell: (i) => (i.os ? osName(i.os) : '–'),
    sort: (i) => i.os,
  },
  {
    key: 'format',
    title: 'Format',
    width: '90px',
    from: 'desktop',
    cell: (i) => i.format,
    sort: (i) => i.format,
  },
  {
    key: 'size',
    title: 'On disk',
    width: '100px',
    align: 'end',
    cell: (i) => bytes(i.size),
    sort: (i) => i.size,
  },
  {
    key: 'capacity',
    title: 'Capacity',
    width: '100px',
    align: 'end',
    from: 'tablet',
    cell: (i) => bytes(i.capacity),
    sort: (i) => i.capacity,
  },
  {
    key: 'created',
    title: 'Added',
    width: '120px',
    from: 'tablet',
    cell: (i) => ago(i.created),
    sort: (i) => i.created,
  },
];

const drop = (image: Image): Promise<boolean> =>
  removeAsked({
    title: `Delete ${image.name}?`,
    body: [
      `${bytes(image.size)} become free. Machines made from it keep their own disks and go on working.`,
    ],
    path: `/images/${encodeURIComponent(image.name)}`,
    failed: `${image.name} was not deleted`,
    then: () => void images.load(),
  });

function BuildDialog({ onClose }: { onClose(): void }) {
  const [name, setName] = useState('debian-12');
  return (
    <FormDialog
      title="Build an image"
      action="Build"
      ready={name.trim() !== ''}
      fields={['/name']}
      onClose={onClose}
      send={async () => putTask(await post<Task>('/images', { name: name.trim() }))}
    >
      {(at) => (
        <TextField
          label="System"
          hint="The host makes the image itself from the system's packages. This takes some minutes."
          value={name}
          onInput={setName}
          error={at('/name')}
          list={['debian-12']}
          autoFocus
        />
      )}
    </FormDialog>
  );
}

export function Images() {
  const list = useListed(images);
  const [building, setBuilding] = useState(false);
  const makeFrom = (image: Image): void => {
    navigate(`#/images?from=${encodeURIComponent(image.name)}`, true);
    surface.value = 'create';
  };
  return (
    <Page
      title="Images"
      lead="Systems ready to run, installation discs, and templates of machines."
      actions={
        mayChange.value && (
          <>
            {has('image-build') && (
              <Button icon={Hammer} onClick={() => setBuilding(true)}>
                Build
              </Button>
            )}
            <Button icon={Upload} variant="primary" onClick={() => openImport()}>
              Upload
            </Button>
          </>
        )
      }
    >
      <Listing
        label="Images"
        list={list}
        nothing={{
          icon: Disc3,
          title: 'No images yet',
          text: 'Drop a disk image or an ISO on this page.',
        }}
        columns={COLUMNS}
        keyOf={(i) => `${i.kind}/${i.name}`}
        nameOf={(i) => i.name}
        textOf={(i) => `${i.name} ${i.kind} ${i.format} ${i.os ? osName(i.os) : ''}`}
        rowActions={
          mayChange.value
            ? (i) => [
                {
                  icon: Plus,
                  label: `New machine from ${i.name}`,
                  disabled: i.state !== 'ready',
                  run: () => makeFrom(i),
                },
                { icon: Trash2, label: `Delete ${i.name}`, run: () => void drop(i) },
              ]
            : undefined
        }
      />
      <TemplatePanel />
      {building && <BuildDialog onClose={() => setBuilding(false)} />}
    </Page>
  );
}
