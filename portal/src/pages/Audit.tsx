import type { AuditEntry, Page as ListPage } from '../api/types';
import { get } from '../api/client';
import { dateTime } from '../lib/format';
import { Badge, Page } from '../ui/bits';
import type { Column } from '../ui/DataTable';
import { History } from '../ui/icons';
import { Listing } from '../ui/Listing';
import { listedOf, useLoaded } from './use-loaded';

const statusTone = (status: number) => (status >= 500 ? 'bad' : status >= 400 ? 'warn' : 'ok');

const COLUMNS: Column<AuditEntry>[] = [
  {
    key: 'time',
    title: 'Time',
    width: '170px',
    cell: (a) => dateTime(a.time),
    sort: (a) => a.time,
  },
  {
    key: 'user',
    title: 'User',
    width: 'minmax(90px, 1fr)',
    cell: (a) => a.user ?? '–',
    sort: (a) => a.user,
  },
  {
    key: 'from',
    title: 'From',
    width: 'minmax(110px, 1fr)',
    from: 'tablet',
    cell: (a) => a.from,
    sort: (a) => a.from,
  },
  {
    key: 'what',
    title: 'Request',
    width: 'minmax(150px, 3fr)',
    cell: (a) => (
      <span class="mono" title={`${a.method} ${a.path}`}>
        {a.method} {a.path.replace(/^\/api\/v1/, '')}
      </span>
    ),
    sort: (a) => a.path,
  },
  {
    key: 'status',
    title: 'Result',
    width: '80px',
    cell: (a) => <Badge tone={statusTone(a.status)}>{a.status}</Badge>,
    sort: (a) => a.status,
  },
];

export function Audit() {
  const list = useLoaded(
    () =>
      get<ListPage<AuditEntry>>('/audit', { limit: 1000, sort: '-id' }).then((page) => page.items),
    [],
  );
  return (
    <Page title="Audit" lead="Who changed or was refused what, from where, with which result." fill>
      <Listing
        label="Audit log"
        list={listedOf(list)}
        nothing={{ icon: History, title: 'Nothing has been changed' }}
        columns={COLUMNS}
        keyOf={(a) => String(a.id)}
        textOf={(a) => `${a.user ?? ''} ${a.from} ${a.method} ${a.path} ${a.status}`}
        rowHeight={36}
        fill
      />
    </Page>
  );
}
