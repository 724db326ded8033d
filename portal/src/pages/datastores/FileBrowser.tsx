import { ChevronRight, Download, File, Folder, FolderSearch, Trash2 } from '../../ui/icons';
import { apiUrl, getAll } from '../../api/client';
import type { Datastore, StoredFile } from '../../api/types';
import { bytes, dateTime } from '../../lib/format';
import { link, navigate } from '../../lib/router';
import { removeAsked } from '../../state/actions';
import { isAdministrator, machines, splitObject } from '../../state/store';
import { Meter, Page } from '../../ui/bits';
import type { Column } from '../../ui/DataTable';
import { Listing } from '../../ui/Listing';
import { download } from '../machine/export';
import { listedOf, useLoaded } from '../use-loaded';

function UsedBy({ file }: { file: StoredFile }) {
  if (!file.used_by) return <span class="muted">–</span>;
  const [, id] = splitObject(file.used_by);
  const machine = machines.value.get(id);
  return machine ? (
    <a href={link('machines', id)}>{machine.name}</a>
  ) : (
    <span class="muted">{file.used_by}</span>
  );
}

const COLUMNS: Column<StoredFile>[] = [
  {
    key: 'name',
    title: 'Name',
    width: 'minmax(160px, 3fr)',
    cell: (f) => (
      <span class="file-name">
        {f.kind === 'folder' ? (
          <Folder size={15} aria-label="Folder" />
        ) : (
          <File size={15} aria-label="File" />
        )}
        <span class="clip">{f.name}</span>
      </span>
    ),
    sort: (f) => (f.kind === 'folder' ? `0${f.name}` : `1${f.name}`),
  },
  {
    key: 'size',
    title: 'Size',
    width: '110px',
    align: 'end',
    cell: (f) => (f.kind === 'file' ? bytes(f.size) : ''),
    sort: (f) => f.size,
  },
  {
    key: 'modified',
    title: 'Changed',
    width: '170px',
    from: 'tablet',
    cell: (f) => <span class="muted">{dateTime(f.modified)}</span>,
    sort: (f) => f.modified,
  },
  {
    key: 'used',
    title: 'Used by',
    width: 'minmax(100px, 1fr)',
    from: 'tablet',
    cell: (f) => <UsedBy file={f} />,
  },
];

export function FileBrowser({ store, path }: { store: Datastore; path: string }) {
  const files = useLoaded(
    () => getAll<StoredFile>(`/datastores/${store.id}/files`, { path }),
    [store.id, path],
  );
  const parts = path.split('/').filter(Boolean);
  const pathOf = (file: StoredFile): string => [...parts, file.name].join('/');
  const open = (file: StoredFile): void => {
    if (file.kind === 'folder') navigate(link('datastores', store.id, ...parts, file.name));
  };
  const drop = (file: StoredFile): Promise<boolean> =>
    removeAsked({
      title: `Delete ${file.name}?`,
      body: ['The file is removed from the datastore. There is no way back.'],
      action: 'Delete file',
      path: `/datastores/${store.id}/files`,
      query: { path: pathOf(file) },
      failed: `${file.name} was not deleted`,
      then: files.reload,
    });
  return (
    <Page
      title={store.name}
      lead={
        <span class="store-lead">
          <span class="mono">{store.path}</span>
          <Meter
            value={store.used}
            max={store.total}
            label="Space"
            text={`${bytes(store.free)} free of ${bytes(store.total)}`}
          />
        </span>
      }
    >
      <nav class="crumbs" aria-label="Folder">
        <a href="#/datastores">Datastores</a>
        <ChevronRight size={14} aria-hidden="true" />
        <a href={link('datastores', store.id)}>{store.name}</a>
        {parts.map((part, i) => (
          <span key={i}>
            <ChevronRight size={14} aria-hidden="true" />
            <a href={link('datastores', store.id, ...parts.slice(0, i + 1))}>{part}</a>
          </span>
        ))}
      </nav>
      <Listing
        label={`Files in ${store.name}/${path}`}
        list={listedOf(files)}
        nothing={{ icon: FolderSearch, title: 'This folder is empty' }}
        columns={COLUMNS}
        keyOf={(f) => f.name}
        textOf={(f) => f.name}
        first={{ key: 'name', down: false }}
        onOpen={open}
        rowHeight={36}
        rowActions={(f) => [
          f.kind === 'file' && {
            icon: Download,
            label: `Download ${f.name}`,
            run: () =>
              download(
                apiUrl(`/datastores/${store.id}/files`, { path: pathOf(f), download: 1 }),
                f.name,
              ),
          },
          f.kind === 'file' &&
            isAdministrator.value && {
              icon: Trash2,
              label: `Delete ${f.name}`,
              disabled: !!f.used_by,
              why: 'It is in use',
              run: () => void drop(f),
            },
        ]}
      />
    </Page>
  );
}
