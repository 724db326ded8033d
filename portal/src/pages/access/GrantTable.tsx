// Roles that users and groups have on single objects; for a machine, with those it inherits.
import { useState } from 'preact/hooks';
import { KeySquare, Plus, Trash2 } from '../../ui/icons';
import { post, remove } from '../../api/client';
import type { Grant, Role } from '../../api/types';
import { allFolders } from '../../lib/tree';
import { notifyProblem } from '../../state/notices';
import {
  datastores,
  grants,
  groups,
  machineList,
  machines,
  networks,
  pools,
  splitObject,
  users,
} from '../../state/store';
import { Badge } from '../../ui/bits';
import { Button } from '../../ui/Button';
import type { Column } from '../../ui/DataTable';
import { SelectField } from '../../ui/Field';
import { Listing } from '../../ui/Listing';
import { FormDialog } from '../FormDialog';
import { useCollection, useListed } from '../use-loaded';
import { RoleBadge, ROLES } from './Users';

function objectName(object: string): string {
  const [kind, id] = splitObject(object);
  const named: Record<string, { id: string; name: string }[]> = {
    pool: pools.items.value,
    datastore: datastores.items.value,
    network: networks.items.value,
  };
  if (kind === 'machine') return machines.value.get(id)?.name ?? id;
  if (kind === 'folder') return id;
  return named[kind]?.find((x) => x.id === id)?.name ?? id;
}

const columns = (own?: string): Column<Grant>[] => [
  {
    key: 'subject',
    title: 'Who',
    width: 'minmax(130px, 1.4fr)',
    cell: (g) => {
      const [kind, name] = splitObject(g.subject);
      return (
        <>
          <b>{name}</b> {kind === 'group' && <Badge>group</Badge>}
        </>
      );
    },
    sort: (g) => g.subject,
  },
  {
    key: 'role',
    title: 'Role',
    width: '140px',
    cell: (g) => <RoleBadge role={g.role} />,
    sort: (g) => g.role,
  },
  {
    key: 'object',
    title: 'On',
    width: 'minmax(140px, 2fr)',
    cell: (g) => (
      <>
        <Badge>{splitObject(g.object)[0]}</Badge>{' '}
        {g.object === own ? 'this object' : objectName(g.object)}
      </>
    ),
    sort: (g) => objectName(g.object),
  },
];

function objectOptions(): { value: string; label: string }[] {
  return [
    ...allFolders(machineList.value).map((f) => ({ value: `folder:${f}`, label: `Folder ${f}` })),
    ...pools.items.value.map((p) => ({ value: `pool:${p.id}`, label: `Pool ${p.name}` })),
    ...datastores.items.value.map((d) => ({
      value: `datastore:${d.id}`,
      label: `Datastore ${d.name}`,
    })),
    ...networks.items.value.map((n) => ({ value: `network:${n.id}`, label: `Network ${n.name}` })),
    ...machineList.value.map((m) => ({ value: `machine:${m.id}`, label: `Machine ${m.name}` })),
  ];
}

function GrantDialog({ object, onClose }: { object?: string; onClose(): void }) {
  const subjects = [
    ...users.items.value.map((u) => ({ value: `user:${u.name}`, label: u.name })),
    ...groups.items.value.map((g) => ({ value: `group:${g.name}`, label: `${g.name} (group)` })),
  ];
  const objects = objectOptions();
  const [subject, setSubject] = useState(subjects[0]?.value ?? '');
  const [role, setRole] = useState<Role>('operator');
  const [on, setOn] = useState(object ?? objects[0]?.value ?? '');
  return (
    <FormDialog
      title="New grant"
      action="Grant"
      ready={subject !== '' && on !== ''}
      fields={['/subject', '/role', '/object']}
      onClose={onClose}
      send={async () => {
        await post('/grants', { subject, role, object: on });
        await grants.load();
      }}
    >
      {(at) => (
        <>
          <SelectField
            label="Who"
            value={subject}
            onInput={setSubject}
            options={subjects}
            error={at('/subject')}
          />
          <SelectField
            label="Role"
            value={role}
            onInput={(r) => setRole(r as Role)}
            options={ROLES.filter((r) => r.value !== 'none')}
            error={at('/role')}
          />
          {!object && (
            <SelectField
              label="On"
              value={on}
              onInput={setOn}
              options={objects}
              error={at('/object')}
            />
          )}
        </>
      )}
    </FormDialog>
  );
}

async function revoke(grant: Grant): Promise<void> {
  try {
    await remove(`/grants/${grant.id}`);
    await grants.load();
  } catch (error) {
    notifyProblem('The grant stays', error);
  }
}

interface GrantTableProps {
  title: string;
  /** Only those of this object; what stands above it is shown with them. */
  object?: string;
  inherited?: string[];
}

export function GrantTable({ title, object, inherited = [] }: GrantTableProps) {
  const all = useListed(grants);
  useCollection(users);
  useCollection(groups);
  useCollection(pools);
  useCollection(datastores);
  useCollection(networks);
  const [creating, setCreating] = useState(false);
  const items = object
    ? all.items.filter((g) => g.object === object || inherited.includes(g.object))
    : all.items;
  return (
    <>
      <Listing
        label={title}
        title={title}
        list={{ ...all, items }}
        nothing={{
          icon: KeySquare,
          title: 'Nothing granted',
          text: 'Roles of users count everywhere; a grant gives a role on one object and what is below it.',
        }}
        headActions={
          <Button small icon={Plus} onClick={() => setCreating(true)}>
            Grant
          </Button>
        }
        columns={columns(object)}
        keyOf={(g) => g.id}
        textOf={(g) => `${g.subject} ${g.role} ${objectName(g.object)}`}
        rowActions={(g) => [
          {
            icon: Trash2,
            label: `Take back from ${splitObject(g.subject)[1]}`,
            disabled: !!object && g.object !== object,
            why: 'Inherited: take it back where it was granted',
            run: () => void revoke(g),
          },
        ]}
      />
      {creating && <GrantDialog object={object} onClose={() => setCreating(false)} />}
    </>
  );
}
